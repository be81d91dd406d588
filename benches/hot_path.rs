//! What a delivery costs beside the kernel, for `benches/instructions` to count: an event is encoded,
//! posted to a worker's mailbox, taken out, queued for each of its channel's members and copied
//! together for their writes. Nothing else runs, no socket and no clock, so that every run is the same.
//!
//! Prints the number of deliveries made: `hot_path TURNS EVENTS`, so many turns of so many events.

//!
//! The sources that this is about are compiled into it once more, so that they alone are optimized:
//! the whole library would take minutes. Hence no router here, and no connection around the outbox.

#![allow(
    dead_code,
    unused_imports,
    reason = "the sources have more than is needed here"
)]
#![allow(
    clippy::duplicate_mod,
    reason = "a mod file of the library, with a part of its children"
)]

/// What a mailbox carries with an accepted socket, which is no part of this.
mod admission {
    pub use fanfare::admission::Permit;
}
mod config {
    pub use fanfare::config::Slow;
}
/// The same of terms.
mod session {
    pub use fanfare::session::Terms;
}
mod trace {
    pub use fanfare::trace::Passage;
}
#[path = "../src/clock.rs"]
mod clock;
#[path = "../src/limits.rs"]
mod limits;
#[path = "../src/protocol/mod.rs"]
mod protocol;
#[path = "../src/worker"]
mod worker {
    pub mod channels;
    pub mod mailbox;
    pub mod tap;
}
#[path = "../src/ws"]
mod ws {
    pub mod frame;
    pub mod outbox;
    pub use frame::Frame;
    pub use outbox::Outbox;
}

use limits::{WRITE_ALONE_BYTES, WRITE_BYTES};
use protocol::{ChannelKey, Epoch, Event, Position};
use worker::channels::{Channels, Slot};
use worker::mailbox::{Inbound, Mailbox, Posted, mailbox};
use ws::frame::encode_event;
use ws::{Frame, Outbox};

const MEMBERS: Slot = 1_000;
/// `limits.queue_bytes`
const QUEUE_BYTES: usize = 1 << 20;

struct Node {
    key: ChannelKey,
    event: Event,
    epoch: Epoch,
    offset: u64,
    mailbox: Mailbox,
    inbound: Inbound,
    channels: Channels,
    outboxes: Vec<Outbox>,
    /// Members with something to write.
    dirty: Vec<Slot>,
    scratch: Vec<u8>,
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    // cargo runs it with arguments of its own.
    let mut number = || arguments.next().and_then(|number| number.parse().ok());
    let (turns, events) = (number().unwrap_or(1), number().unwrap_or(1));
    let mut node = Node::new();
    let mut written = 0;
    for _ in 0..turns {
        written += node.turn(events);
    }
    assert!(written > turns * events * u64::from(MEMBERS) * 128);
    println!("{}", turns * events * u64::from(MEMBERS));
}

impl Node {
    fn new() -> Self {
        let key = ChannelKey::parse("post_42", 255).expect("a key");
        let json = format!("{{\"type\":\"tick\",\"pad\":\"{}\"}}", "x".repeat(104));
        let (mailbox, inbound) = mailbox();
        let mut channels = Channels::default();
        for slot in 0..MEMBERS {
            channels.join(key.clone(), slot, config::Slow::Close);
            channels.activate(&key, slot, None);
        }
        Self {
            event: Event::parse(&json, 1_000).expect("an event"),
            epoch: Epoch::new("0123456789abcdef"),
            offset: 1_000,
            key,
            mailbox,
            inbound,
            channels,
            outboxes: (0..MEMBERS).map(|_| Outbox::default()).collect(),
            dirty: Vec::new(),
            scratch: Vec::new(),
        }
    }

    /// So many events come and leave in one write for each member; bytes written.
    fn turn(&mut self, events: u64) -> u64 {
        for _ in 0..events {
            self.publish();
        }
        while let Some(posted) = self.inbound.event() {
            let frame = Frame::encoded(&posted.frame);
            let (outboxes, dirty) = (&mut self.outboxes, &mut self.dirty);
            let position = posted.position.as_ref();
            self.channels
                .event(&posted.channel, position, &frame, |slot, _| {
                    let outbox = &mut outboxes[slot as usize];
                    if outbox.is_empty() {
                        dirty.push(slot);
                    }
                    outbox.push(&frame, QUEUE_BYTES).expect("room");
                });
        }
        let mut written = 0;
        for slot in self.dirty.drain(..) {
            let outbox = &mut self.outboxes[slot as usize];
            while !outbox.is_empty() {
                let bytes = match outbox.first(WRITE_ALONE_BYTES) {
                    Some(first) => first,
                    None => {
                        self.scratch.clear();
                        outbox.copy_to(&mut self.scratch, WRITE_BYTES);
                        &*self.scratch
                    }
                };
                // The kernel takes everything.
                let taken = std::hint::black_box(bytes).len();
                outbox.consume(taken);
                written += taken as u64;
            }
        }
        written
    }

    fn publish(&mut self) {
        self.offset += 1;
        let position = Position {
            epoch: self.epoch.clone(),
            offset: self.offset,
        };
        let posted = Posted {
            channel: self.key.clone(),
            frame: encode_event(&self.key, &self.event, Some(&position)),
            position: Some(position),
            passage: None,
            since_ns: 0,
        };
        assert!(self.mailbox.post(posted));
    }
}
