//! What only all nodes together know: which channels are followed, who is connected; and closing sockets
//! wherever they are.
//!
//! A question is a notice to all. Each node puts what it has found into the store for a moment, and says
//! so by another notice. The asking node waits for those that it knows of, for a bounded time, and says
//! which of them were silent. With the embedded broker there are no others, and nothing of this happens.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout, timeout_at};

use crate::broker::{Broker, Error, NOTICE_BYTES_MAX, Store};
use crate::clock::rfc3339;
use crate::patience::{EVENT_TIMEOUT, together, within};
use crate::protocol::connection::{connection_id, serial_of};
use crate::router::Router;
use crate::router::nodes::{Answered, Asked, Task};
use crate::router::notices::{Notice, Question};
use crate::worker::mailbox::{Control, Listed, Wanted, Whom};

/// How long the others may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often a node says that it is there.
const ROUND: Duration = Duration::from_secs(5);
/// How long others may take to say so to one that is new.
const GREETING: Duration = Duration::from_millis(500);
/// After saying so failed.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// For how long an answer is kept for the node that asked.
const ANSWER_TTL: Duration = Duration::from_secs(10);
/// Entries that another node may ask for.
const ENTRIES_MAX: usize = 1_001;
/// The namespace of the answers.
const SPACE: &str = "answer";
/// A worker that takes longer is busier than it should ever be.
const WORKER_TIMEOUT: Duration = Duration::from_secs(5);

/// This node and the others.
#[derive(Clone)]
pub struct Peers {
    router: Arc<Router>,
    node: Arc<str>,
    broker: Arc<dyn Broker>,
    store: Arc<dyn Store>,
    /// Whether there can be others.
    is_shared: bool,
}

/// An open connection, as backends and operators see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConnectionView {
    /// Names the node, too.
    pub connection_id: String,
    /// Whose it is.
    pub user_id: String,
    /// The client's.
    pub address: String,
    /// RFC 3339.
    pub connected_at: String,
    /// `websocket` or `sse`.
    pub transport: String,
    /// How many it is subscribed to.
    pub channels: usize,
}

/// What all nodes answer together.
#[derive(Debug)]
pub struct Gathered<T> {
    /// As if one had answered.
    pub all: T,
    /// Nodes that are known and did not answer: what they have is not in it.
    pub silent: Vec<Arc<str>>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// A worker of this node is stuck.
    #[error("a worker does not answer")]
    Worker,
    /// What was asked for is larger than what nodes tell each other.
    #[error("too long to be told to other nodes")]
    TooLong,
    /// The others cannot be asked.
    #[error(transparent)]
    Broker(#[from] Error),
}

impl Peers {
    /// `is_shared`: whether other nodes may be on the same broker.
    pub fn new(
        router: Arc<Router>,
        node: Arc<str>,
        broker: Arc<dyn Broker>,
        store: Arc<dyn Store>,
        is_shared: bool,
    ) -> Self {
        Self {
            router,
            node,
            broker,
            store,
            is_shared,
        }
    }

    /// Whether there can be others.
    pub fn is_shared(&self) -> bool {
        self.is_shared
    }

    /// The first `limit` channels of all nodes by their keys, of those that begin with `prefix` and come
    /// after `after`, with their subscribers.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn channels(
        &self,
        prefix: String,
        after: Option<String>,
        limit: usize,
    ) -> Result<Gathered<Vec<(String, u64)>>, Fault> {
        let mut all = BTreeMap::new();
        let mut add = |page: Vec<(String, u64)>| {
            for (key, subscribers) in page {
                *all.entry(key).or_default() += subscribers;
            }
        };
        add(self.own_channels(&prefix, after.as_deref(), limit));
        let question = Question::Channels {
            prefix,
            after,
            limit,
        };
        let (pages, silent) = self.look(question).await?;
        pages.into_iter().for_each(|(_, page)| add(page));
        // Whatever is among the first of all is among the first of each node that has it.
        let all = all.into_iter().take(limit).collect();
        Ok(Gathered { all, silent })
    }

    /// The first `limit` connections of all nodes after that of the name `after`: node by node, in the
    /// order of their names, and in the order in which they came.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn connections(
        &self,
        user: Option<String>,
        after: Option<String>,
        limit: usize,
    ) -> Result<Gathered<Vec<ConnectionView>>, Fault> {
        let own = self
            .own_connections(user.as_deref(), after.as_deref(), limit)
            .await?;
        let question = Question::Connections { user, after, limit };
        let (mut pages, silent) = self.look(question).await?;
        pages.push((Arc::clone(&self.node), own));
        pages.sort_by(|(one, _), (other, _)| one.cmp(other));
        let all = pages.into_iter().flat_map(|(_, page)| page);
        let all = all.take(limit).collect();
        Ok(Gathered { all, silent })
    }

    /// Closes the sockets of a user, or one by its name, wherever they are; how many.
    ///
    /// # Errors
    /// See [`Fault`]. Those of this node are closed then.
    pub async fn disconnect(
        &self,
        user_id: Option<String>,
        named: Option<String>,
        reason: Option<Arc<str>>,
    ) -> Result<Gathered<u64>, Fault> {
        let id = new_id();
        let notice = Notice::Disconnect {
            from: self.node.to_string(),
            user_id: user_id.clone(),
            connection_id: named.clone(),
            reason: reason.as_deref().map(str::to_owned),
            id: Some(id.clone()),
        };
        let encoded = notice.encode();
        if encoded.len() > NOTICE_BYTES_MAX {
            return Err(Fault::TooLong);
        }
        let closing = self.router.close(user_id, named.as_deref(), reason);
        let is_ours_alone = named
            .as_ref()
            .is_some_and(|named| serial_of(named, &self.node).is_some());
        let own: usize = answered(closing).await?.into_iter().sum();
        let mut all = own as u64;
        if is_ours_alone || !self.is_shared {
            let silent = Vec::new();
            return Ok(Gathered { all, silent });
        }
        let is_asked = |node: &str| {
            let named = named.as_ref();
            named.is_none_or(|named| serial_of(named, node).is_some())
        };
        let (answers, silent) = self.ask(&id, encoded, is_asked).await?;
        all += answers.iter().map(|answer| answer.count).sum::<u64>();
        Ok(Gathered { all, silent })
    }

    /// Says that this node is there, and notes who else is, for ever.
    pub async fn keep(self) {
        let nodes = &self.router.nodes;
        let mut rounds = interval(ROUND);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        rounds.tick().await;
        let mut is_new = true;
        loop {
            let here = Notice::Here {
                node: self.node.to_string(),
                is_new,
            };
            nodes.set_new(is_new);
            if within(EVENT_TIMEOUT, self.broker.announce(here.encode()))
                .await
                .is_err()
            {
                sleep(RETRY_AFTER).await;
                continue;
            }
            if is_new {
                sleep(GREETING).await;
                nodes.set_new(false);
                is_new = false;
            }
            tokio::select! {
                _ = rounds.tick() => nodes.pass(),
                () = nodes.greet.notified() => {}
                () = nodes.lost.notified() => is_new = true,
            }
        }
    }

    /// Answers the others, one after the other, for ever.
    pub async fn answer(self) {
        while let Ok(asked) = self.router.nodes.questions.recv_async().await {
            if let Err(error) = self.answer_one(asked).await {
                tracing::debug!(%error, "a question of another node could not be answered");
            }
        }
    }

    /// Says that this node is there no more.
    pub async fn leave(&self) {
        if self.is_shared {
            let gone = Notice::Gone {
                node: self.node.to_string(),
            };
            // Then it is forgotten after a while.
            let _ = within(EVENT_TIMEOUT, self.broker.announce(gone.encode())).await;
        }
    }

    async fn answer_one(&self, Asked { by, id, what }: Asked) -> Result<(), Fault> {
        let count = match what {
            Task::Count(closing) => answered(closing).await?.into_iter().sum(),
            Task::Look(Question::Channels {
                prefix,
                after,
                limit,
            }) => {
                let limit = limit.min(ENTRIES_MAX);
                let page = self.own_channels(&prefix, after.as_deref(), limit);
                self.put(&id, &page).await?
            }
            Task::Look(Question::Connections { user, after, limit }) => {
                let limit = limit.min(ENTRIES_MAX);
                let page = self.own_connections(user.as_deref(), after.as_deref(), limit);
                self.put(&id, &page.await?).await?
            }
        };
        let answer = Notice::Answered {
            to: by.to_string(),
            id,
            node: self.node.to_string(),
            count: count as u64,
        };
        within(EVENT_TIMEOUT, self.broker.announce(answer.encode())).await?;
        Ok(())
    }

    /// Leaves a page for whoever asked, unless it is empty.
    async fn put<T: Serialize>(&self, id: &str, page: &[T]) -> Result<usize, Fault> {
        if !page.is_empty() {
            let value = serde_json::to_vec(page).map_err(Error::storage)?;
            let key = key(id, &self.node);
            let set = self.store.set(SPACE, &key, value.into(), Some(ANSWER_TTL));
            within(EVENT_TIMEOUT, set).await?;
        }
        Ok(page.len())
    }

    /// What the others have found, and who was silent.
    async fn look<T: DeserializeOwned>(
        &self,
        question: Question,
    ) -> Result<(Vec<(Arc<str>, Vec<T>)>, Vec<Arc<str>>), Fault> {
        if !self.is_shared {
            return Ok((Vec::new(), Vec::new()));
        }
        let id = new_id();
        let asked = Notice::Asked {
            from: self.node.to_string(),
            id: id.clone(),
            question,
        };
        let encoded = asked.encode();
        if encoded.len() > NOTICE_BYTES_MAX {
            return Err(Fault::TooLong);
        }
        let (answers, mut silent) = self.ask(&id, encoded, |_| true).await?;
        let found = answers.into_iter().filter(|answer| answer.count > 0);
        let reads = found.map(|answer| {
            let id = &id;
            async move {
                let key = key(id, &answer.node);
                let stored = within(EVENT_TIMEOUT, self.store.get(SPACE, &key)).await;
                (answer.node, stored)
            }
        });
        let mut pages = Vec::new();
        for (node, stored) in together(reads).await {
            let page = stored?.and_then(|it| serde_json::from_slice(&it.value).ok());
            match page {
                Some(page) => pages.push((node, page)),
                None => silent.push(node),
            }
        }
        Ok((pages, silent))
    }

    /// Asks, and waits for those that `is_asked` is true of.
    async fn ask(
        &self,
        id: &str,
        notice: bytes::Bytes,
        is_asked: impl Fn(&str) -> bool,
    ) -> Result<(Vec<Answered>, Vec<Arc<str>>), Fault> {
        let nodes = &self.router.nodes;
        let mut open = nodes.open(id);
        let is_new = nodes.is_new();
        within(EVENT_TIMEOUT, self.broker.announce(notice)).await?;
        let mut silent = nodes.others();
        silent.retain(|node| is_asked(node));
        let mut answers: Vec<Answered> = Vec::new();
        let until = Instant::now() + PATIENCE;
        // One that is new does not know yet for whom to wait.
        while is_new || !silent.is_empty() {
            let Ok(Some(answer)) = timeout_at(until, open.answers.recv()).await else {
                break;
            };
            silent.retain(|node| *node != answer.node);
            if answers.iter().all(|other| other.node != answer.node) {
                answers.push(answer);
            }
        }
        if !silent.is_empty() {
            tracing::warn!(?silent, "other nodes did not answer in time");
        }
        Ok((answers, silent))
    }

    fn own_channels(&self, prefix: &str, after: Option<&str>, limit: usize) -> Vec<(String, u64)> {
        let page = self.router.interest.page(prefix, after, limit);
        let page = page.into_iter();
        page.map(|(key, count)| (key.as_str().to_owned(), count))
            .collect()
    }

    /// The page that begins after the connection of the name `after`, which may be one of another node.
    async fn own_connections(
        &self,
        user: Option<&str>,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<ConnectionView>, Fault> {
        let after = match after.and_then(|named| named.rsplit_once('-').map(|it| (named, it.0))) {
            Some((named, node)) if node == &*self.node => serial_of(named, node).unwrap_or(0),
            Some((_, node)) if node > &*self.node => return Ok(Vec::new()),
            _ => 0,
        };
        let wanted = Wanted {
            whom: user.map_or(Whom::Everybody, |user| Whom::User(user.into())),
            after,
            limit,
        };
        let pages = self.router.ask_workers(|reply| Control::List {
            wanted: wanted.clone(),
            reply,
        });
        let mut page: Vec<Listed> = answered(pages).await?.into_iter().flatten().collect();
        page.sort_unstable();
        page.truncate(limit);
        let views = page.iter().map(|listed| ConnectionView {
            connection_id: connection_id(&self.node, listed.serial),
            user_id: listed.user_id.to_string(),
            address: listed.address.to_string(),
            connected_at: rfc3339(listed.opened_at),
            transport: if listed.is_stream { "sse" } else { "websocket" }.to_owned(),
            channels: listed.channels,
        });
        Ok(views.collect())
    }
}

/// The answers of all workers that live.
async fn answered<T>(answers: Vec<oneshot::Receiver<T>>) -> Result<Vec<T>, Fault> {
    let answers = timeout(WORKER_TIMEOUT, together(answers.into_iter())).await;
    let answers = answers.map_err(|_| Fault::Worker)?;
    // A worker that ended meanwhile has no connections.
    Ok(answers.into_iter().flatten().collect())
}

fn new_id() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

fn key(id: &str, node: &str) -> String {
    format!("{id}:{node}")
}
