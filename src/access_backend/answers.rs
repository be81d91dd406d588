//! Answers that are remembered: two generations, so that the oldest half goes at once when there are
//! too many, and nothing has to be kept in order.

use std::collections::HashMap;

use super::Question;

/// Answers of one generation; a hundred bytes or so each.
const GENERATION_MAX: usize = 32_768;

/// What was answered, and until when it counts.
#[derive(Default)]
pub(super) struct Answers {
    young: Generation,
    old: Generation,
}

type Generation = HashMap<Question, Remembered>;

#[derive(Clone, Copy)]
struct Remembered {
    is_allowed: bool,
    /// Monotonic milliseconds.
    until_ms: u64,
}

impl Answers {
    /// The answer, if it is remembered and still counts.
    pub(super) fn known(&self, question: &Question, now_ms: u64) -> Option<bool> {
        // The younger one is the newer one.
        let found = self
            .young
            .get(question)
            .or_else(|| self.old.get(question))?;
        (now_ms < found.until_ms).then_some(found.is_allowed)
    }

    /// Remembers an answer until then.
    pub(super) fn put(&mut self, question: Question, is_allowed: bool, until_ms: u64) {
        if self.young.len() >= GENERATION_MAX {
            self.old = std::mem::take(&mut self.young);
        }
        let remembered = Remembered {
            is_allowed,
            until_ms,
        };
        self.young.insert(question, remembered);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::ChannelKey;
    use crate::session::access::Action;

    fn question(n: usize, action: Action) -> Question {
        Question {
            user_id: format!("u{n}").into(),
            wallet: None,
            channel: ChannelKey::parse("room_1", 255).unwrap(),
            action,
        }
    }

    #[test]
    fn an_answer_counts_for_its_question_and_its_time() {
        let mut answers = Answers::default();
        let subscribe = question(1, Action::Subscribe);
        answers.put(subscribe.clone(), true, 100);
        assert_eq!(answers.known(&subscribe, 99), Some(true));
        assert_eq!(answers.known(&subscribe, 100), None);
        assert_eq!(answers.known(&question(1, Action::Publish), 0), None);
        answers.put(subscribe.clone(), false, 300);
        assert_eq!(answers.known(&subscribe, 200), Some(false));
    }

    #[test]
    fn the_newest_are_kept_and_no_more_than_two_generations() {
        let mut answers = Answers::default();
        let many = GENERATION_MAX * 3;
        for n in 0..many {
            answers.put(question(n, Action::Subscribe), true, u64::MAX);
        }
        assert!(answers.young.len() + answers.old.len() <= 2 * GENERATION_MAX);
        for n in many - GENERATION_MAX..many {
            let known = answers.known(&question(n, Action::Subscribe), 0);
            assert_eq!(known, Some(true), "{n}");
        }
        assert_eq!(answers.known(&question(0, Action::Subscribe), 0), None);
    }
}
