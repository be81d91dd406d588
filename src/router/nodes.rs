//! Which other nodes there are, and what this one has asked them: a table, and nothing that waits.
//!
//! A node is known by what it says of itself every few seconds. One that has fallen silent stays known
//! for a while, so that an answer without its part says so, and is then forgotten. Not for: asking
//! (peers.rs).

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, mpsc, oneshot};

use super::notices::Question;

/// Rounds after which a node is forgotten that has said nothing.
const SILENT_ROUNDS_MAX: u32 = 6;
/// Nodes that are known; of more, the answers are taken all the same.
const NODES_MAX: usize = 256;
/// Questions of other nodes that wait to be answered. One more is not, which its node notices.
const QUESTIONS_MAX: usize = 64;

/// What another node asks.
#[derive(Debug)]
pub struct Asked {
    /// The node.
    pub by: Arc<str>,
    /// Its name for it.
    pub id: String,
    /// What.
    pub what: Task,
}

/// What an answer takes.
#[derive(Debug)]
pub enum Task {
    /// Looking.
    Look(Question),
    /// Waiting for the workers, which close sockets and say how many.
    Count(Vec<oneshot::Receiver<usize>>),
}

/// What one node answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// The node.
    pub node: Arc<str>,
    /// How many it has found or closed.
    pub count: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Nodes {
    /// Rounds since a node was heard; never this one.
    seen: Mutex<BTreeMap<Arc<str>, u32>>,
    /// Open questions of this node.
    open: Mutex<HashMap<String, mpsc::Sender<Answered>>>,
    asked: flume::Sender<Asked>,
    /// What is to be answered.
    pub questions: flume::Receiver<Asked>,
    /// Somebody wants to know who is there.
    pub greet: Notify,
    /// Notices may have been lost.
    pub lost: Notify,
    /// Whether there may be others that are not known yet.
    is_new: AtomicBool,
}

impl Default for Nodes {
    fn default() -> Self {
        let (asked, questions) = flume::bounded(QUESTIONS_MAX);
        Self {
            seen: Mutex::default(),
            open: Mutex::default(),
            asked,
            questions,
            greet: Notify::new(),
            lost: Notify::new(),
            is_new: AtomicBool::new(true),
        }
    }
}

impl Nodes {
    /// The others that are there, or were a moment ago.
    pub fn others(&self) -> Vec<Arc<str>> {
        lock(&self.seen).keys().cloned().collect()
    }

    /// Whether others had the time to say that they are there.
    pub fn is_new(&self) -> bool {
        self.is_new.load(Ordering::Acquire)
    }

    /// See [`Nodes::is_new`].
    pub fn set_new(&self, is_new: bool) {
        self.is_new.store(is_new, Ordering::Release);
    }

    /// Another node says that it is there.
    pub(super) fn heard(&self, node: &str, wants_to_know: bool) {
        let mut seen = lock(&self.seen);
        let is_known = seen.contains_key(node);
        let has_room = seen.len() < NODES_MAX;
        if is_known || has_room {
            seen.insert(node.into(), 0);
        }
        // One that there is no room for is not greeted each time: it would greet back for ever.
        if wants_to_know || !is_known && has_room {
            self.greet.notify_one();
        }
    }

    /// Another node says that it ends.
    pub(super) fn gone(&self, node: &str) {
        lock(&self.seen).remove(node);
    }

    /// A round is over.
    pub fn pass(&self) {
        lock(&self.seen).retain(|_, rounds| {
            *rounds += 1;
            *rounds <= SILENT_ROUNDS_MAX
        });
    }

    /// Opens a question, until what is returned is dropped.
    pub fn open(self: &Arc<Self>, id: &str) -> Open {
        let (tx, answers) = mpsc::channel(NODES_MAX);
        lock(&self.open).insert(id.to_owned(), tx);
        Open {
            nodes: Arc::clone(self),
            id: id.to_owned(),
            answers,
        }
    }

    /// An answer to an open question; to any other it is late.
    pub(super) fn answered(&self, id: &str, answered: Answered) {
        if let Some(tx) = lock(&self.open).get(id) {
            // More than there can be nodes: the rest is silence.
            let _ = tx.try_send(answered);
        }
    }

    /// A question of another node.
    pub(super) fn asked(&self, asked: Asked) {
        if self.asked.try_send(asked).is_err() {
            tracing::warn!("other nodes ask more than this one can answer");
        }
    }
}

/// A question that is open.
#[derive(Debug)]
pub struct Open {
    nodes: Arc<Nodes>,
    id: String,
    /// As they come.
    pub answers: mpsc::Receiver<Answered>,
}

impl Drop for Open {
    fn drop(&mut self) {
        lock(&self.nodes.open).remove(&self.id);
    }
}

/// A lock whose holder panicked is taken all the same: what it guards is valid after every step.
fn lock<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_falls_silent_is_known_for_a_while() {
        let nodes = Nodes::default();
        nodes.heard("a", false);
        nodes.heard("b", false);
        for _ in 0..SILENT_ROUNDS_MAX {
            nodes.pass();
            nodes.heard("b", false);
        }
        assert_eq!(nodes.others(), [Arc::from("a"), Arc::from("b")]);
        nodes.pass();
        assert_eq!(nodes.others(), [Arc::from("b")]);
        nodes.gone("b");
        assert!(nodes.others().is_empty());
    }

    #[test]
    fn everything_is_bounded() {
        let nodes = Arc::new(Nodes::default());
        for n in 0..2 * NODES_MAX {
            nodes.heard(&n.to_string(), true);
        }
        assert_eq!(nodes.others().len(), NODES_MAX);
        for _ in 0..2 * QUESTIONS_MAX {
            nodes.asked(Asked {
                by: "a".into(),
                id: "1".into(),
                what: Task::Count(Vec::new()),
            });
        }
        assert_eq!(nodes.questions.len(), QUESTIONS_MAX);
        let answered = Answered {
            node: "a".into(),
            count: 1,
        };
        let mut open = nodes.open("1");
        for _ in 0..2 * NODES_MAX {
            nodes.answered("1", answered.clone());
        }
        assert_eq!(open.answers.try_recv(), Ok(answered.clone()));
        nodes.answered("2", answered);
        drop(open);
        assert!(lock(&nodes.open).is_empty());
    }
}
