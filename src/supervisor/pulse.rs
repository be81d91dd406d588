//! Whether workers still take turns. Pure.

use std::time::Duration;

/// A worker that is told to take a turn has so many looks' time to take it.
const LOOKS_PER_LIMIT: u32 = 4;
const LOOK_MAX: Duration = Duration::from_secs(10);

/// The turns that were counted at the last look.
#[derive(Debug)]
pub struct Pulse {
    turns: Vec<u64>,
}

impl Pulse {
    /// Begins with what is counted now.
    pub fn new(turns: Vec<u64>) -> Self {
        Self { turns }
    }

    /// How long to wait between two looks, where the process may be silent for `limit` at most.
    pub fn every(limit: Option<Duration>) -> Duration {
        limit.map_or(LOOK_MAX, |limit| (limit / LOOKS_PER_LIMIT).min(LOOK_MAX))
    }

    /// The workers that have taken no turn since the last look, though they were woken for it.
    pub fn stuck(&mut self, turns: Vec<u64>) -> Vec<usize> {
        let before = std::mem::replace(&mut self.turns, turns);
        let both = before.iter().zip(&self.turns).enumerate();
        both.filter(|(_, (before, now))| before == now)
            .map(|(worker, _)| worker)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_takes_no_turn_is_named_until_it_does() {
        let mut pulse = Pulse::new(vec![5, 5]);
        assert_eq!(pulse.stuck(vec![6, 9]), Vec::<usize>::new());
        assert_eq!(pulse.stuck(vec![6, 10]), [0]);
        assert_eq!(pulse.stuck(vec![6, 10]), [0, 1]);
        assert_eq!(pulse.stuck(vec![7, 11]), Vec::<usize>::new());
    }

    #[test]
    fn a_look_comes_well_before_the_end_of_patience() {
        assert_eq!(
            Pulse::every(Some(Duration::from_secs(2))),
            Duration::from_millis(500)
        );
        assert_eq!(Pulse::every(Some(Duration::from_secs(600))), LOOK_MAX);
        assert_eq!(Pulse::every(None), LOOK_MAX);
    }
}
