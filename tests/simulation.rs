//! Replay and live events merged, in thousands of random interleavings: the real store, router,
//! mailboxes, channels and sessions, with dice in place of sockets and threads. Publications, reads
//! of history and of its pages, deliveries and answers happen in any order that the dice find;
//! connections and whole mailboxes are lost, and the store is closed and opened again.
//!
//! `FANFARE_TEST_SEED` repeats a run, but for how far the store's own thread gets meanwhile.

#![allow(
    clippy::unwrap_used,
    reason = "what does not work here has to fail the test"
)]

#[path = "simulation/account.rs"]
mod account;
#[path = "simulation/client.rs"]
mod client;
#[allow(
    dead_code,
    clippy::disallowed_methods,
    reason = "shared with the other tests; only its seed reads a clock"
)]
#[path = "support/dice.rs"]
mod dice;
#[path = "simulation/node.rs"]
mod node;

use std::path::Path;
use std::time::Duration;

use account::Account;
use client::Client;
use dice::Dice;
use fanfare::broker::{Broker, Error, Publication, Published};
use fanfare::protocol::Event;
use node::Node;
use tokio::task::{JoinHandle, yield_now};

const STEPS: u64 = 60_000;
const CLIENTS: usize = 12;
/// One that keeps everything, one that keeps little, one that keeps it briefly.
const CHANNELS: [&str; 4] = ["post_1", "post_2", "short_1", "brief_1"];
/// Publications whose answers are awaited at a time.
const IN_FLIGHT_MAX: usize = 8;

/// A publication that was begun: its channel and number, and what will come of it.
type InFlight = (usize, u64, JoinHandle<Result<Published, Error>>);

struct World {
    node: Node,
    clients: Vec<Client>,
    in_flight: Vec<InFlight>,
    account: Account,
    published: u64,
}

#[tokio::test]
async fn however_things_interleave_replay_and_live_events_are_one_sequence() {
    let mut dice = Dice::from_environment();
    // In memory where there is such a thing: it is about order, not about disks.
    let memory = Path::new("/dev/shm");
    let folder = if memory.is_dir() {
        tempfile::tempdir_in(memory).unwrap()
    } else {
        tempfile::tempdir().unwrap()
    };
    let path = folder.path().join("fanfare.redb");
    let mut world = World {
        node: Node::open(&path).await,
        clients: (0..CLIENTS).map(Client::new).collect(),
        in_flight: Vec::new(),
        account: Account::default(),
        published: 0,
    };
    for _ in 0..STEPS {
        world.step(&path, &mut dice).await;
    }
    world.settle().await;
    println!("{} events: {:?}", world.published, world.account.counts);
    world.account.assert_worth_it();
}

impl World {
    async fn step(&mut self, path: &Path, dice: &mut Dice) {
        let n = dice.below(CLIENTS as u64) as usize;
        let channel = dice.below(CHANNELS.len() as u64) as usize;
        let (node, account) = (&mut self.node, &mut self.account);
        match dice.below(2_000) {
            0 => self.restart(path).await,
            1..20 => {
                // Members of a channel that lost events are sent away, as by the worker.
                for lost in node.lose(dice) {
                    account.count("sent away");
                    self.clients[lost].cut(node);
                }
            }
            20..80 => self.clients[n].cut(node),
            80..120 => node.clock.advance(Duration::from_millis(dice.below(400))),
            120..160 => self.clients[n].unsubscribe(CHANNELS[channel], node, account),
            160..240 => self.publish(channel).await,
            240..320 => self.answered(dice).await,
            320..650 => {
                let worker = dice.below(node::WORKERS as u64) as usize;
                for (member, frame) in node.deliver(worker, dice.below(4)) {
                    self.clients[member].hear(&frame, account);
                }
            }
            650..900 => self.clients[n].subscribe(CHANNELS[channel], node, account, dice),
            900..1_200 => self.clients[n].read(node).await,
            1_200..1_750 => {
                for _ in 0..=dice.below(3) {
                    self.clients[n].go_on(node, account).await;
                }
            }
            _ => self.clients[n].answer(node, account),
        }
    }

    async fn publish(&mut self, channel: usize) {
        if self.in_flight.len() >= IN_FLIGHT_MAX {
            return;
        }
        self.published += 1;
        let n = self.published;
        let key = node::key(CHANNELS[channel]);
        let retention = self.node.retention(&key);
        let publication = Publication {
            channel: key,
            event: Event::parse(&format!("{{\"type\":\"tick\",\"n\":{n}}}"), 1_000).unwrap(),
            retention,
            idempotency_key: None,
            trace: None,
        };
        self.account.send(n, CHANNELS[channel], &self.node.clock);
        let broker = self.node.broker.clone();
        let publish = tokio::spawn(async move { broker.publish(publication).await });
        // So that it is handed to the store's thread, now.
        yield_now().await;
        self.in_flight.push((channel, n, publish));
    }

    /// One publication is waited for.
    async fn answered(&mut self, dice: &mut Dice) {
        if !self.in_flight.is_empty() {
            let at = dice.below(self.in_flight.len() as u64) as usize;
            let (channel, n, publish) = self.in_flight.swap_remove(at);
            let position = publish.await.unwrap().unwrap().position.unwrap();
            self.account.learn(CHANNELS[channel], &position, n);
        }
    }

    async fn restart(&mut self, path: &Path) {
        self.account.count("restarts");
        for client in &mut self.clients {
            client.cut(&mut self.node);
        }
        // What was begun is finished, though nobody hears of it.
        self.in_flight.clear();
        self.node.broker.close().await.unwrap();
        let clock = self.node.clock.clone();
        self.node = Node::reopen(path, clock).await;
    }

    /// Nothing is published any more, and everybody comes back to everything once more.
    async fn settle(&mut self) {
        let mut dice = Dice::seeded(0);
        while !self.in_flight.is_empty() {
            self.answered(&mut dice).await;
        }
        for client in &mut self.clients {
            client.cut(&mut self.node);
            for channel in CHANNELS {
                client.subscribe(channel, &mut self.node, &mut self.account, &mut dice);
                client.read(&mut self.node).await;
                client.answer(&mut self.node, &mut self.account);
                while client.is_replaying() {
                    client.go_on(&mut self.node, &mut self.account).await;
                }
            }
        }
        for worker in 0..node::WORKERS {
            for (member, frame) in self.node.deliver(worker, u64::MAX) {
                self.clients[member].hear(&frame, &mut self.account);
            }
        }
        for channel in CHANNELS {
            let top = self.node.broker.position(&node::key(channel)).await;
            let top = top.unwrap();
            assert!(top.offset >= self.account.top(channel), "{channel}");
            for client in &self.clients {
                assert_eq!(client.at(channel), Some(&top), "{channel}");
            }
        }
    }
}
