//! Which trace something belongs to, and how programs tell each other: `traceparent` of W3C Trace Context.

use std::fmt;

use aws_lc_rs::rand;

/// What children of a recorded span need to know of it. Only what is recorded has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Context {
    /// All spans of one trace share it.
    pub trace_id: [u8; 16],
    /// The span itself.
    pub span_id: [u8; 8],
}

/// What a caller said of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// Its span.
    pub context: Context,
    /// Whether it records its part, and so wants ours.
    pub sampled: bool,
}

impl Context {
    /// The beginning of a trace.
    pub fn root() -> Self {
        let mut trace_id = [0; 16];
        fill(&mut trace_id);
        Self {
            trace_id,
            ..Self::default()
        }
        .child()
    }

    /// A span below this one.
    pub fn child(self) -> Self {
        let mut span_id = [0; 8];
        fill(&mut span_id);
        Self { span_id, ..self }
    }

    /// Of a sampled `traceparent`, as [`Context`]'s `Display` writes it.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let caller = Caller::parse(text)?;
        caller.sampled.then_some(caller.context)
    }
}

impl Default for Context {
    /// Ids that nothing has: zeros alone are invalid.
    fn default() -> Self {
        Self {
            trace_id: [0; 16],
            span_id: [0; 8],
        }
    }
}

impl Caller {
    /// Takes a `traceparent` apart. What is malformed counts as none, and a later version as what its
    /// beginning says (Trace Context, sections 2.2 and 4.3).
    pub fn parse(text: &[u8]) -> Option<Self> {
        let (head, rest) = text.split_at_checked(LENGTH)?;
        let [version, trace_id, span_id, flags] = parts(head)?;
        let version = hex::<1>(version)?[0];
        let is_known = match version {
            0 => rest.is_empty(),
            0xff => false,
            _ => rest.is_empty() || rest.starts_with(b"-"),
        };
        let context = Context {
            trace_id: hex(trace_id)?,
            span_id: hex(span_id)?,
        };
        let is_valid = context.trace_id != [0; 16] && context.span_id != [0; 8];
        (is_known && is_valid).then_some(Self {
            context,
            sampled: hex::<1>(flags)?[0] & 1 == 1,
        })
    }
}

impl fmt::Display for Context {
    /// As a `traceparent` that is sampled.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("00-")?;
        for byte in self.trace_id {
            write!(f, "{byte:02x}")?;
        }
        f.write_str("-")?;
        for byte in self.span_id {
            write!(f, "{byte:02x}")?;
        }
        f.write_str("-01")
    }
}

/// `00-`, 32 digits, `-`, 16 digits, `-01`.
pub const LENGTH: usize = 55;

fn parts(head: &[u8]) -> Option<[&[u8]; 4]> {
    let mut parts = head.split(|byte| *byte == b'-');
    let four = [parts.next()?, parts.next()?, parts.next()?, parts.next()?];
    parts.next().is_none().then_some(four)
}

/// Lower-case hexadecimal of exactly so many bytes.
fn hex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    if digits.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = value(pair[0])? << 4 | value(pair[1])?;
    }
    Some(bytes)
}

/// Random bytes that are not all zero. A machine without randomness signs no tokens either.
fn fill(id: &mut [u8]) {
    if rand::fill(id).is_err() || id.iter().all(|byte| *byte == 0) {
        id[0] = 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn what_a_caller_says_is_taken_and_passed_on() {
        let caller = Caller::parse(GOOD.as_bytes()).unwrap();
        assert!(caller.sampled);
        assert_eq!(caller.context.to_string(), GOOD);
        let child = caller.context.child();
        assert_eq!(child.trace_id, caller.context.trace_id);
        assert_ne!(child.span_id, caller.context.span_id);
        let unsampled = GOOD.replace("-01", "-00");
        assert!(!Caller::parse(unsampled.as_bytes()).unwrap().sampled);
        // Later versions may have more behind it, and more flags.
        for later in [
            GOOD.replacen("00", "cc", 1),
            format!("cc{}-what-ever", &GOOD[2..]),
            GOOD.replace("-01", "-0b"),
        ] {
            assert!(Caller::parse(later.as_bytes()).unwrap().sampled, "{later}");
        }
    }

    #[test]
    fn nonsense_is_nobody() {
        let zeros = |n| "0".repeat(n);
        let long = format!("{GOOD}-x");
        let cases = [
            String::new(),
            "00".into(),
            GOOD[..54].into(),
            long,
            GOOD.to_uppercase(),
            GOOD.replacen("00", "ff", 1),
            GOOD.replace('-', "_"),
            GOOD.replace("4bf9", "4bg9"),
            format!("00-{}-00f067aa0ba902b7-01", zeros(32)),
            format!("00-4bf92f3577b34da6a3ce929d0e0e4736-{}-01", zeros(16)),
            "é".repeat(40),
            "-".repeat(55),
        ];
        for case in cases {
            assert_eq!(Caller::parse(case.as_bytes()), None, "{case}");
        }
    }
}
