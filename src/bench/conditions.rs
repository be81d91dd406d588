//! Whether the figures can be trusted: was the client the bottleneck, was the machine busy.

use super::descriptors;
use super::process::Used;

/// Of one CPU. A client above it may have held the server back.
const CLIENT_BUSY: f64 = 0.9;
/// Of one CPU. What else runs above it makes times longer.
const OTHERS_BUSY: f64 = 0.2;

/// The worst of all measurements.
#[derive(Debug, Default)]
pub struct Conditions {
    client: f64,
    others: f64,
    warnings: Vec<String>,
}

impl Conditions {
    /// Takes a measurement in.
    pub fn note(&mut self, used: &Used) {
        if used.seconds > 0.0 {
            self.client = self.client.max(used.client / used.seconds);
            self.others = self.others.max(used.others / used.seconds);
        }
    }

    /// How many sockets there can be of so many; that they are fewer has to be said.
    pub fn sockets(&mut self, wanted: usize) -> usize {
        let sockets = descriptors::make_room(wanted);
        if sockets < wanted {
            self.warn(descriptors::too_few(wanted, sockets));
        }
        sockets
    }

    /// Something else that has to be said.
    pub fn warn(&mut self, text: impl Into<String>) {
        self.warnings.push(text.into());
    }

    /// Everything that has to be said beside the figures.
    pub fn warnings(self) -> Vec<String> {
        let mut warnings = self.warnings;
        if cfg!(debug_assertions) {
            warnings.push("this is a debug build: build with --release to measure".to_owned());
        }
        if self.client > CLIENT_BUSY {
            warnings.push(format!(
                "the client used {:.0} % of a CPU: the server may be able to do more per second; \
                 compare the CPU figures",
                self.client * 100.0
            ));
        }
        if self.others > OTHERS_BUSY {
            warnings.push(format!(
                "other processes used {:.0} % of a CPU meanwhile: compare the ratios, not the times",
                self.others * 100.0
            ));
        }
        warnings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_measurement_is_told() {
        let used = |client, others| Used {
            seconds: 2.0,
            server: None,
            client,
            others,
        };
        let said = |measurements: &[Used]| {
            let mut conditions = Conditions::default();
            measurements.iter().for_each(|used| conditions.note(used));
            conditions.warnings().join("\n")
        };
        let calm = said(&[used(1.0, 0.1)]);
        assert!(
            !calm.contains("client") && !calm.contains("other"),
            "{calm}"
        );
        let both = said(&[used(1.9, 0.1), used(0.1, 3.0), used(0.1, 0.1)]);
        assert!(both.contains("95 %") && both.contains("150 %"), "{both}");
    }
}
