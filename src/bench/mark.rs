//! The mark in every event of a benchmark: which it is and when it was published. It stands at the
//! event's end, where it is found without a search, whatever the server puts in front.

/// `{channel:4}{sequence:8}{micros:12}`, in hexadecimal, after the run's own name.
const DIGITS: usize = 24;
const RUN_DIGITS: usize = 8;
const TAIL: &[u8] = b"\"}";
/// From the mark's first digit to the end of the event.
const FROM_END: usize = RUN_DIGITS + DIGITS + TAIL.len();
/// The smallest event that can be made.
pub const EVENT_BYTES_MIN: usize = 64;

/// What an event says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// The channel's number.
    pub channel: u16,
    /// Counts the channel's events from 0.
    pub sequence: u32,
    /// When it was published, in microseconds of the monotonic clock (48 bits: nine years).
    pub micros: u64,
}

/// The events of one run, told from those of any other.
#[derive(Debug, Clone)]
pub struct Run {
    name: [u8; RUN_DIGITS],
    bytes: usize,
}

impl Run {
    /// A run whose events are so long, or [`EVENT_BYTES_MIN`] if that is more.
    pub fn new(bytes: usize) -> Self {
        let mut name = [b'0'; RUN_DIGITS];
        let random = uuid::Uuid::new_v4().simple().to_string();
        name.copy_from_slice(&random.as_bytes()[..RUN_DIGITS]);
        Self {
            name,
            bytes: bytes.max(EVENT_BYTES_MIN),
        }
    }

    /// Bytes of every event.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Appends the event: a JSON object with `type`, of exactly [`Run::bytes`].
    pub fn put(&self, out: &mut Vec<u8>, mark: Mark) {
        const HEAD: &[u8] = b"{\"type\":\"bench\",\"pad\":\"";
        const BEFORE_MARK: &[u8] = b"\",\"m\":\"";
        let end = out.len() + self.bytes;
        out.extend_from_slice(HEAD);
        out.resize(end - FROM_END - BEFORE_MARK.len(), b'.');
        out.extend_from_slice(BEFORE_MARK);
        out.extend_from_slice(&self.name);
        put_hex(out, u64::from(mark.channel), 4);
        put_hex(out, u64::from(mark.sequence), 8);
        put_hex(out, mark.micros, 12);
        out.extend_from_slice(TAIL);
    }

    /// The mark of a message, if it is an event of this run.
    pub fn find(&self, message: &[u8]) -> Option<Mark> {
        let mark = message.get(message.len().checked_sub(FROM_END)?..)?;
        let (name, digits) = mark.split_first_chunk::<RUN_DIGITS>()?;
        if *name != self.name || !digits.ends_with(TAIL) {
            return None;
        }
        Some(Mark {
            channel: hex(&digits[..4])? as u16,
            sequence: hex(&digits[4..12])? as u32,
            micros: hex(&digits[12..DIGITS])?,
        })
    }
}

fn put_hex(out: &mut Vec<u8>, value: u64, digits: u32) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let shifts = (0..digits).rev();
    out.extend(shifts.map(|place| HEX[(value >> (4 * place) & 15) as usize]));
}

fn hex(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |value, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(value << 4 | u64::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_found_behind_whatever_stands_in_front() {
        let mark = Mark {
            channel: 0xfedc,
            sequence: 0x8765_4321,
            micros: 0x1234_5678_9abc,
        };
        for bytes in [0, EVENT_BYTES_MIN, 128, 5_000] {
            let run = Run::new(bytes);
            let mut event = Vec::new();
            run.put(&mut event, mark);
            assert_eq!(event.len(), run.bytes());
            assert!(
                serde_json::from_slice::<serde_json::Value>(&event)
                    .unwrap()
                    .is_object()
            );
            let delivered = [b"{\"_meta\":{\"channel\":\"x\"},", &event[1..]].concat();
            assert_eq!(run.find(&delivered), Some(mark));
            assert_eq!(Run::new(bytes).find(&delivered), None, "another run's");
            assert_eq!(run.find(&delivered[..delivered.len() - 1]), None);
        }
        assert_eq!(Run::new(0).find(b"{}"), None);
    }
}
