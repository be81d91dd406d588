//! Since when bytes wait for a socket that takes no more, to within a quarter of what they may wait.

use std::collections::VecDeque;

/// Marks while the oldest one's time runs: one each quarter.
const MARKS_PER_AGE: u64 = 4;

/// How long the oldest bytes of a blocked outbox have waited. Empty while the socket takes everything.
#[derive(Debug, Default)]
pub struct Lag {
    /// Oldest first. `MARKS_PER_AGE` + 1 at most, as long as [`Lag::is_late`] is acted upon.
    marks: VecDeque<Mark>,
    /// How long bytes may wait, in milliseconds.
    age_ms: u64,
}

/// What waited at a moment.
#[derive(Debug)]
struct Mark {
    at_ms: u64,
    /// Bytes of it that the socket has not taken yet. Never less than in an older mark.
    left: usize,
}

impl Lag {
    /// So many bytes wait now, and none may wait longer than `age_ms`. Remembered once a quarter.
    pub fn mark(&mut self, bytes: usize, now_ms: u64, age_ms: u64) {
        self.age_ms = age_ms;
        if now_ms >= self.next_mark_ms() {
            self.marks.push_back(Mark {
                at_ms: now_ms,
                left: bytes,
            });
        }
    }

    /// The socket took so many bytes.
    pub fn taken(&mut self, bytes: usize) {
        for mark in &mut self.marks {
            mark.left = mark.left.saturating_sub(bytes);
        }
        while self.marks.front().is_some_and(|oldest| oldest.left == 0) {
            self.marks.pop_front();
        }
    }

    /// Nothing waits any more.
    pub fn clear(&mut self) {
        self.marks = VecDeque::new();
    }

    /// Whether something has waited for longer than it may.
    pub fn is_late(&self, now_ms: u64) -> bool {
        now_ms >= self.late_ms()
    }

    /// When to mark or to ask again, in monotonic milliseconds; `u64::MAX` if nothing waits.
    pub fn deadline_ms(&self) -> u64 {
        if self.marks.is_empty() {
            return u64::MAX;
        }
        self.late_ms().min(self.next_mark_ms())
    }

    fn late_ms(&self) -> u64 {
        self.marks
            .front()
            .map_or(u64::MAX, |oldest| oldest.at_ms.saturating_add(self.age_ms))
    }

    fn next_mark_ms(&self) -> u64 {
        let quarter_ms = (self.age_ms / MARKS_PER_AGE).max(1);
        self.marks
            .back()
            .map_or(0, |newest| newest.at_ms.saturating_add(quarter_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGE_MS: u64 = 1_000;

    #[test]
    fn what_is_taken_in_time_is_never_late() {
        let mut lag = Lag::default();
        assert_eq!(lag.deadline_ms(), u64::MAX);
        // A queue of 100 bytes that never empties: 10 come and 10 go every 50 ms.
        for step in 0..200 {
            let now_ms = step * 50;
            lag.mark(100, now_ms, AGE_MS);
            lag.taken(10);
            assert!(!lag.is_late(now_ms), "at {now_ms}");
            assert!(lag.marks.len() <= 5);
        }
        lag.taken(100);
        assert_eq!(lag.deadline_ms(), u64::MAX);
    }

    #[test]
    fn bytes_trickling_out_do_not_hide_the_age_of_what_is_behind_them() {
        let mut lag = Lag::default();
        lag.mark(10_000, 0, AGE_MS);
        let mut late_ms = None;
        for now_ms in (0..3_000).step_by(10) {
            lag.taken(1);
            lag.mark(10_000, now_ms, AGE_MS);
            if lag.is_late(now_ms) {
                late_ms.get_or_insert(now_ms);
            }
        }
        assert_eq!(late_ms, Some(1_000));
    }

    /// Against a queue that knows when each of its bytes came.
    #[test]
    fn the_age_is_right_to_within_a_quarter() {
        for seed in 1..200_u64 {
            let mut dice = seed;
            let mut roll = |bound: u64| {
                dice ^= dice << 13;
                dice ^= dice >> 7;
                dice ^= dice << 17;
                dice % bound
            };
            let (mut lag, mut queue) = (Lag::default(), VecDeque::new());
            for now_ms in (0..20_000).step_by(7) {
                queue.extend(std::iter::repeat_n(now_ms, roll(12) as usize));
                if lag.deadline_ms() <= now_ms || queue.len() < 30 {
                    lag.mark(queue.len(), now_ms, AGE_MS);
                }
                let count = (roll(13) as usize).min(queue.len());
                lag.taken(count);
                queue.drain(..count);
                let Some(oldest) = queue.front() else {
                    lag.clear();
                    continue;
                };
                let age_ms = now_ms - oldest;
                if lag.is_late(now_ms) {
                    assert!(age_ms >= AGE_MS, "{age_ms} ms is not late, seed {seed}");
                    break;
                }
                // A turn of the test beside the quarter.
                assert!(age_ms <= AGE_MS * 5 / 4 + 14, "{age_ms} ms, seed {seed}");
            }
        }
    }
}
