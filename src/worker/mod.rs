//! A connection thread: a current-thread runtime that owns its sockets from the upgrade to the end.
//!
//! Each connection has a small task that reads it; what the reads cause gathers in outboxes. A turn
//! drains the mailbox, applies it, then writes once to every connection that has something to write.
//! No lock inside: everything here belongs to the worker's own thread.

mod aside;
pub mod calls;
pub mod channels;
pub mod connection;
mod cork;
mod delivering;
mod drive;
mod effects;
mod event_stream;
mod first;
mod handshake;
pub mod mailbox;
pub mod replay;
mod roster;
mod serve;
mod sight;
mod slow;
mod stall;
pub mod stream;
pub mod tap;
mod terms;
#[cfg(test)]
mod tests;
mod turn;

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use slab::Slab;
use tokio::sync::watch;

use crate::http::Services;
use crate::limits::READ_BYTES;
use crate::metrics::WorkerCounters;
use crate::router::Router;
use crate::session::{Effect, Terms};
use crate::ws::Engine;
use channels::{Channels, Slot};
use connection::Connection;
use delivering::Delivering;
use mailbox::{Control, Farewell, Inbound};

/// What a worker works with.
pub struct Outfit {
    /// Its number, from 0.
    pub index: usize,
    /// What sessions go by at first.
    pub terms: Arc<Terms>,
    /// The node-wide parts.
    pub services: Arc<Services>,
    /// Where events come from and interest is told.
    pub router: Arc<Router>,
    /// Its own counters.
    pub counters: Arc<WorkerCounters>,
    /// Numbers all connections of the node.
    pub serials: Arc<AtomicU64>,
}

/// A worker, as its own tasks see it.
struct Worker {
    outfit: Outfit,
    inbound: Inbound,
    /// Turns true when nobody new comes in any more: HTTP connections then end after their request.
    draining: watch::Sender<bool>,
    state: RefCell<State>,
}

/// Everything that turns and tasks change.
struct State {
    /// What sessions go by.
    terms: Arc<Terms>,
    connections: Slab<Connection>,
    channels: Channels,
    /// Connections in [`connection::Flow::Dirty`], each once, the longest waiting first.
    dirty: VecDeque<Slot>,
    /// Events that are not written to all of those yet.
    delivering: Delivering,
    /// (due in monotonic milliseconds, slot, serial). May hold entries that are no longer true.
    deadlines: BinaryHeap<Reverse<(u64, Slot, u64)>>,
    /// Sockets are to be looked at for revoked tokens, from this monotonic time on.
    recheck_at_ms: Option<u64>,
    /// When they were looked at last.
    rechecked_ms: u64,
    /// The node stops.
    farewell: Option<Farewell>,
    /// Connections whose outbox was full when an event came.
    overflowed: Vec<Slot>,
    /// Who watches; mostly nobody.
    taps: Vec<tap::Tap>,
    /// The protocol, for all connections.
    engine: Engine,
    /// One buffer for each purpose, for all connections.
    read: Vec<u8>,
    write: Vec<u8>,
    protocol: Vec<u8>,
    effects: Vec<Effect>,
    /// For spreading reconnects; not for secrets.
    dice: u64,
}

/// Whether the worker goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// There is more to do: let others have their share, then go on.
    Again,
    /// Wait for the next wake.
    Wait,
    /// All connections are closed and the node stops, or it was told to end now.
    End,
}

/// Runs a worker on its own thread until it is drained or stopped.
pub fn spawn(outfit: Outfit, inbound: Inbound) -> std::io::Result<std::thread::JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()?;
    std::thread::Builder::new()
        .name(format!("worker-{}", outfit.index))
        .spawn(move || {
            let worker = Rc::new(Worker::new(outfit, inbound));
            let tasks = tokio::task::LocalSet::new();
            // A task of its own, so that only its own wakes run it: `block_on` polls its future at
            // every wake of any task, and a turn would begin before the others had theirs.
            let running = tasks.spawn_local(worker.run());
            if let Err(error) = tasks.block_on(&runtime, running) {
                std::panic::resume_unwind(error.into_panic());
            }
        })
}

impl Worker {
    fn new(outfit: Outfit, inbound: Inbound) -> Self {
        use std::hash::{BuildHasher, RandomState};
        let state = State {
            terms: outfit.terms.clone(),
            connections: Slab::new(),
            channels: Channels::default(),
            dirty: VecDeque::new(),
            delivering: Delivering::default(),
            deadlines: BinaryHeap::new(),
            recheck_at_ms: None,
            rechecked_ms: 0,
            farewell: None,
            overflowed: Vec::new(),
            taps: Vec::new(),
            engine: Engine::new(outfit.terms.limits.message_bytes),
            read: vec![0; READ_BYTES],
            write: Vec::new(),
            protocol: Vec::new(),
            effects: Vec::new(),
            dice: RandomState::new().hash_one(outfit.index) | 1,
        };
        Self {
            outfit,
            inbound,
            draining: watch::Sender::new(false),
            state: RefCell::new(state),
        }
    }

    /// Turn after turn.
    async fn run(self: Rc<Self>) {
        let mut next = Next::Wait;
        loop {
            if next == Next::Wait {
                self.wait().await;
            }
            // Reads, publications and answers that are ready come first: what they cause leaves in
            // the same writes. (This also polls the driver: saturated, it is where events gather.)
            tokio::task::yield_now().await;
            while let Ok(message) = self.inbound.control.try_recv() {
                match message {
                    Control::Accept(accepted) => self.clone().accept(accepted),
                    Control::Terms(terms) => self.renew(terms),
                    Control::Watch { tap, reply } => {
                        self.watch(tap);
                        let _ = reply.send(());
                    }
                    Control::Drain(farewell) => self.drain(farewell),
                    Control::Finish => drop(self.draining.send_replace(true)),
                    // Whoever asked may have given up.
                    Control::List { wanted, reply } => {
                        let _ = reply.send(self.list(&wanted));
                    }
                    Control::Disconnect {
                        whom,
                        message,
                        reply,
                    } => {
                        let _ = reply.send(self.disconnect(&whom, message.as_deref()));
                    }
                    // Whoever asked may have given up.
                    Control::Probe(reply) => drop(reply.try_send(())),
                    Control::Stop => return,
                }
            }
            next = self.turn();
            if next == Next::End {
                return;
            }
        }
    }

    /// Until something may be there to do.
    async fn wait(&self) {
        let next_ms = self.state.borrow().next_deadline_ms();
        if next_ms == u64::MAX {
            return self.inbound.woken().await;
        }
        let now_ms = self.outfit.services.clock.now().mono_ms;
        let wait = Duration::from_millis(next_ms.saturating_sub(now_ms));
        // Elapsed or woken: a turn finds out what there is to do.
        let _ = tokio::time::timeout(wait, self.inbound.woken()).await;
    }

    fn next_serial(&self) -> u64 {
        self.outfit.serials.fetch_add(1, Ordering::Relaxed)
    }
}

impl State {
    fn next_deadline_ms(&self) -> u64 {
        let connections_ms = self
            .deadlines
            .peek()
            .map_or(u64::MAX, |Reverse((due_ms, ..))| *due_ms);
        connections_ms.min(self.recheck_at_ms.unwrap_or(u64::MAX))
    }

    /// Puts the connection's next deadline where turns find it.
    fn schedule(&mut self, slot: Slot) {
        let connection = &mut self.connections[slot as usize];
        let due_ms = connection.deadline_ms();
        if due_ms < connection.scheduled_ms {
            connection.scheduled_ms = due_ms;
            self.deadlines
                .push(Reverse((due_ms, slot, connection.serial)));
        }
    }

    /// Puts back what a panic may have taken away: what is shared by all connections.
    fn refit(&mut self) {
        self.read.resize(READ_BYTES, 0);
        self.protocol.clear();
        self.effects.clear();
    }

    /// A number below `bound`, to spread things (xorshift64, Marsaglia 2003).
    fn roll(&mut self, bound: u64) -> u64 {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        self.dice % bound.max(1)
    }
}
