//! What nodes tell each other beside events, and what this one does about it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use tokio::sync::oneshot;

use super::Router;
use super::nodes::{Answered, Asked, Task};
use crate::broker::{Revocation, Revoked, Store};
use crate::clock::Clock;
use crate::protocol::connection::serial_of;
use crate::worker::mailbox::{Control, Mailbox, Whom};

/// How often revocations that are over are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(60);
/// After reading the revocations failed.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What [`broker::Broker::announce`](crate::broker::Broker::announce) carries. An older node passes over
/// what it does not know, so new kinds may be added, and members, but none may change its meaning.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    tag = "type",
    rename_all = "snake_case",
    rename_all_fields = "camelCase"
)]
pub enum Notice {
    /// A token was revoked.
    RevokedToken {
        /// Its id.
        id: String,
        /// See [`Revocation::keep_until_ms`].
        keep_until_ms: u64,
    },
    /// A family was revoked.
    RevokedFamily {
        /// Its id.
        id: String,
        /// See [`Revocation::keep_until_ms`].
        keep_until_ms: u64,
    },
    /// Tokens of a user were revoked.
    RevokedUser {
        /// The user's id.
        id: String,
        /// See [`Revoked::User`].
        before_ms: u64,
        /// See [`Revocation::keep_until_ms`].
        keep_until_ms: u64,
    },
    /// Sockets are to be closed, on every node but that which tells it and has done so already.
    Disconnect {
        /// The name of that node.
        from: String,
        /// Those of this user, or
        user_id: Option<String>,
        /// the one of this name.
        connection_id: Option<String>,
        /// For the clients.
        reason: Option<String>,
        /// What the answer is to be called, where one is waited for.
        id: Option<String>,
    },
    /// A node is there.
    Here {
        /// Its name.
        node: String,
        /// Whether it wants to hear who else is.
        is_new: bool,
    },
    /// A node ends.
    Gone {
        /// Its name.
        node: String,
    },
    /// All other nodes are asked.
    Asked {
        /// By this one.
        from: String,
        /// What the answers are to be called.
        id: String,
        /// What.
        question: Question,
    },
    /// What a node answers to one that asked. What it has found is in the store.
    Answered {
        /// The name of the node that asked.
        to: String,
        /// See [`Notice::Asked`].
        id: String,
        /// Who answers.
        node: String,
        /// How many it has found or closed.
        count: u64,
    },
}

/// What a node may be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "of", rename_all = "snake_case", rename_all_fields = "camelCase")]
pub enum Question {
    /// The first channels that are followed, with their subscribers.
    Channels {
        /// How their keys begin.
        prefix: String,
        /// The key that they come after.
        after: Option<String>,
        /// At most so many.
        limit: usize,
    },
    /// The first open connections.
    Connections {
        /// Only those of this user.
        user: Option<String>,
        /// The name of the one that they come after.
        after: Option<String>,
        /// At most so many.
        limit: usize,
    },
}

impl Notice {
    /// As it goes over the wire.
    pub fn encode(&self) -> Bytes {
        serde_json::to_vec(self)
            .expect("strings and integers are always JSON")
            .into()
    }
}

impl From<&Revocation> for Notice {
    fn from(revocation: &Revocation) -> Self {
        let keep_until_ms = revocation.keep_until_ms;
        match revocation.revoked.clone() {
            Revoked::Token { id } => Self::RevokedToken { id, keep_until_ms },
            Revoked::Family { id } => Self::RevokedFamily { id, keep_until_ms },
            Revoked::User { id, before_ms } => Self::RevokedUser {
                id,
                before_ms,
                keep_until_ms,
            },
        }
    }
}

impl Router {
    /// Acts on what some node, perhaps this one, has told all.
    pub(super) fn hear(&self, notice: &[u8]) {
        let (revoked, keep_until_ms) = match serde_json::from_slice(notice) {
            Ok(Notice::RevokedToken { id, keep_until_ms }) => {
                (Revoked::Token { id }, keep_until_ms)
            }
            Ok(Notice::RevokedFamily { id, keep_until_ms }) => {
                (Revoked::Family { id }, keep_until_ms)
            }
            Ok(Notice::RevokedUser {
                id,
                before_ms,
                keep_until_ms,
            }) => (Revoked::User { id, before_ms }, keep_until_ms),
            Ok(other) => {
                self.hear_of_nodes(other);
                return;
            }
            Err(error) => {
                tracing::debug!(%error, "a notice that is not understood");
                return;
            }
        };
        self.revoke(&Revocation {
            revoked,
            keep_until_ms,
        });
    }

    /// What nodes say of themselves, ask and answer.
    fn hear_of_nodes(&self, notice: Notice) {
        let Some(own) = self.node.get() else { return };
        let is_other = |node: &str| node != &**own;
        let ask = |by: String, id, what| {
            let by = by.into();
            self.nodes.asked(Asked { by, id, what });
        };
        match notice {
            Notice::Disconnect {
                from,
                user_id,
                connection_id,
                reason,
                id,
            } if is_other(&from) => {
                let reason = reason.map(Arc::from);
                let closing = self.close(user_id, connection_id.as_deref(), reason);
                if let Some(id) = id {
                    ask(from, id, Task::Count(closing));
                }
            }
            Notice::Here { node, is_new } if is_other(&node) => self.nodes.heard(&node, is_new),
            Notice::Gone { node } => self.nodes.gone(&node),
            Notice::Asked { from, id, question } if is_other(&from) => {
                ask(from, id, Task::Look(question));
            }
            Notice::Answered {
                to,
                id,
                node,
                count,
            } if !is_other(&to) => {
                let node = node.into();
                self.nodes.answered(&id, Answered { node, count });
            }
            _ => {}
        }
    }

    /// Has the workers close the sockets of a user, or the one of this name, if it is here; they say how many.
    pub fn close(
        &self,
        user_id: Option<String>,
        connection_id: Option<&str>,
        message: Option<Arc<str>>,
    ) -> Vec<oneshot::Receiver<usize>> {
        let named = || serial_of(connection_id?, self.node.get()?).map(Whom::Connection);
        let Some(whom) = user_id.map(|id| Whom::User(id.into())).or_else(named) else {
            return Vec::new();
        };
        self.ask_workers(|reply| Control::Disconnect {
            whom: whom.clone(),
            message: message.clone(),
            reply,
        })
    }

    /// Refuses these tokens from now on, and closes the sockets of this node that were opened with them.
    pub fn revoke(&self, revocation: &Revocation) {
        self.revocations.add(revocation);
        self.recheck();
    }

    /// Has the workers close the sockets whose tokens are revoked.
    fn recheck(&self) {
        self.mailboxes.iter().for_each(Mailbox::recheck);
    }
}

/// Keeps the revocations of a node right, for ever: forgets those that are over, and reads them anew
/// from the store after notices may have been lost.
pub async fn keep_revocations(router: Arc<Router>, store: Arc<dyn Store>, clock: Clock) {
    loop {
        let lost = tokio::time::timeout(SWEEP_EVERY, router.notices_lost.notified()).await;
        router.revocations.sweep(clock.unix_ms());
        if lost.is_err() {
            continue;
        }
        while let Err(error) = router.revocations.load(&*store).await {
            tracing::warn!(%error, "the revocations could not be read");
            tokio::time::sleep(RETRY_AFTER).await;
        }
        router.recheck();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::Deliver;
    use crate::broker::embedded::{self, Options};
    use crate::metrics::Counters;
    use crate::session::Identity;
    use crate::worker::mailbox::mailbox;

    fn token(id: &str) -> Revocation {
        Revocation {
            revoked: Revoked::Token { id: id.into() },
            keep_until_ms: u64::MAX,
        }
    }

    fn bearer_of(id: &str) -> Identity {
        Identity {
            user_id: "u".into(),
            wallet: None,
            jti: Some(id.into()),
            family: None,
            issued_at_ms: 0,
            expires_at_ms: u64::MAX,
            variant: None,
            channels: [].into(),
        }
    }

    #[test]
    fn a_notice_comes_back_as_what_it_was_and_nonsense_is_passed_over() {
        let (mailbox, inbound) = mailbox();
        let router = Router::new(vec![mailbox], Arc::new(Counters::new(1)));
        for nonsense in [
            "",
            "[]",
            "{}",
            r#"{"type":"of_a_newer_node"}"#,
            r#"{"type":"revoked_token"}"#,
            r#"{"type":"revoked_token","id":7,"keepUntilMs":1}"#,
            "\u{0}",
        ] {
            router.notice(Bytes::from(nonsense));
        }
        assert!(router.revocations.is_empty());
        assert!(!inbound.takes_recheck());
        router.notice(Notice::from(&token("t")).encode());
        assert!(router.revocations.cover(&bearer_of("t")));
        assert!(inbound.takes_recheck());
        assert!(!inbound.takes_recheck());
        let family = Revoked::Family { id: "f".into() };
        let user = Revoked::User {
            id: "u".into(),
            before_ms: 5,
        };
        for revoked in [family, user] {
            let notice = Notice::from(&Revocation {
                revoked,
                keep_until_ms: u64::MAX,
            });
            assert_eq!(
                serde_json::from_slice::<Notice>(&notice.encode()).unwrap(),
                notice
            );
            router.notice(notice.encode());
        }
        assert!(router.revocations.cover_family("f"));
        assert!(router.revocations.cover_user("u", 4));
    }

    #[tokio::test]
    async fn what_was_not_heard_is_read_from_the_store() {
        let folder = tempfile::tempdir().unwrap();
        let clock = Clock::system();
        let options = Options {
            path: folder.path().join("db"),
            store_bytes: u64::MAX,
            history_bytes: u64::MAX,
            notifications_per_user: usize::MAX,
        };
        let store = embedded::open(options, clock.clone()).unwrap();
        let (mailbox, inbound) = mailbox();
        let router = Arc::new(Router::new(vec![mailbox], Arc::new(Counters::new(1))));
        let keeper = tokio::spawn(keep_revocations(router.clone(), store.clone(), clock));
        store.revoke(token("missed")).await.unwrap();
        // A gap of one channel is no reason, one of all is.
        router.gap(None);
        while !inbound.takes_recheck() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(router.revocations.cover(&bearer_of("missed")));
        keeper.abort();
    }
}
