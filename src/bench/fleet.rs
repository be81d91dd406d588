//! All subscribers and publishers of a measurement, in one thread around one epoll.

use std::io;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::{Timespec, epoll};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime,
};
use socket2::{Domain, Protocol, Socket, Type};

use super::Failure;
use super::connection::{Connection, Over, Stage};
use super::door::Door;
use super::entry;
use super::histogram::Histogram;
use super::ledger::{Faults, Ledger, Seen};
use super::mark::{Mark, Run};
use super::publisher::Publisher;
use super::stalled::Stalled;
use super::stopwatch;
use super::wire;

/// Larger than a frame can be, and one read takes much at once.
const SCRATCH_BYTES: usize = 2 * wire::FRAME_BYTES_MAX as usize;
/// Readiness reports taken at a time.
const EVENTS: usize = 1_024;
/// Numbers from here on are publishers' and the timer's; below are connections.
const PUBLISHER: u64 = 1 << 40;
const TIMER: u64 = u64::MAX;
/// Handshakes that are under way at once. The server's backlog holds more.
const HANDSHAKES: usize = 1_000;
/// Opening that makes no progress for so long is given up.
const STUCK: Duration = Duration::from_secs(20);

/// Subscribers and publishers of one server.
pub struct Fleet {
    pub(super) epoll: OwnedFd,
    timer: OwnedFd,
    events: Vec<epoll::Event>,
    scratch: Vec<u8>,
    pub(super) connections: Vec<Connection>,
    publishers: Vec<Publisher>,
    /// Whether every publisher publishes on every channel.
    shared: bool,
    /// Publications so far, which spreads them over shared publishers.
    turns: usize,
    /// Keys of the channels, by number.
    channels: Vec<String>,
    run: Run,
    ready: usize,
    /// Sockets opened so far, which spreads them over source addresses.
    opened: u64,
    /// What was published, and what came.
    pub ledger: Ledger,
    /// From making a publication's request to its answer, in nanoseconds.
    pub answers: Histogram,
    /// Publications that were answered.
    pub answered: u64,
    /// The body of the last answer to a publication.
    pub last_answer: Vec<u8>,
    /// Subscriptions that were told `recovered: true`.
    pub recovered: u64,
    /// Sockets that ended, or never came to be, without being told to.
    pub failed: u64,
    /// Why the first of them did.
    pub first_failure: Option<Over>,
}

impl Fleet {
    /// `count` subscribers, all away, spread evenly over `channels`; events of so many bytes.
    ///
    /// # Errors
    /// When the kernel has no descriptor left.
    pub fn new(count: usize, channels: Vec<String>, event_bytes: usize) -> Result<Self, Failure> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let timer = timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK,
        )?;
        watch(&epoll, &timer, TIMER, epoll::EventFlags::IN)?;
        let mut fleet = Self {
            epoll,
            timer,
            events: Vec::with_capacity(EVENTS),
            scratch: vec![0; SCRATCH_BYTES],
            connections: Vec::with_capacity(count),
            publishers: Vec::new(),
            shared: false,
            turns: 0,
            run: Run::new(event_bytes),
            ready: 0,
            opened: 0,
            ledger: Ledger::default(),
            answers: Histogram::default(),
            answered: 0,
            last_answer: Vec::new(),
            recovered: 0,
            failed: 0,
            first_failure: None,
            channels,
        };
        let numbers = (0..count).map(|number| number % fleet.channels.len());
        fleet.connections = numbers.map(Connection::new).collect();
        fleet.begin();
        Ok(fleet)
    }

    /// New books: what was published before counts no more, and from now on everybody who is there has
    /// to get everything.
    pub fn begin(&mut self) {
        let mut subscribers = vec![0; self.channels.len()];
        for connection in &mut self.connections {
            connection.seen = Seen::default();
            let is_there = connection.stage == Stage::Ready;
            connection.counted = is_there && connection.stalled.is_none();
            if let Some(stalled) = &mut connection.stalled {
                *stalled = Stalled::default();
            }
            subscribers[connection.channel] += u32::from(connection.counted);
        }
        self.ledger = Ledger::new(&subscribers, !self.shared);
        self.answers = Histogram::default();
        self.answered = 0;
        self.run = Run::new(self.run.bytes());
    }

    /// Opens all that are away; the seconds from the first connect to the last subscription's answer.
    /// `subscribe` gives the commands that one of a channel sends.
    ///
    /// # Errors
    /// When nothing can be opened any more; single failures are counted.
    pub fn open(
        &mut self,
        door: &Door,
        subscribe: &dyn Fn(usize) -> Vec<String>,
        progress: &mut dyn FnMut(usize),
    ) -> Result<f64, Failure> {
        let start = stopwatch::nanos();
        let failed_before = self.failed;
        let mut away = (0..self.connections.len())
            .filter(|&index| self.connections[index].stage == Stage::Away)
            .collect::<Vec<_>>()
            .into_iter();
        let wanted = self.ready + away.len();
        let mut last = (0, start);
        loop {
            let failed = (self.failed - failed_before) as usize;
            let under_way = wanted - away.len() - self.ready - failed;
            for index in away.by_ref().take(HANDSHAKES.saturating_sub(under_way)) {
                self.connect(index, door)?;
            }
            if self.ready + (self.failed - failed_before) as usize >= wanted {
                break;
            }
            self.turn(Duration::from_millis(100), door, subscribe)?;
            progress(self.ready);
            let now = stopwatch::nanos();
            let settled = self.ready as u64 + self.failed;
            if settled != last.0 {
                last = (settled, now);
            } else if now - last.1 > stopwatch::of(STUCK) {
                let text = format!("{} of {wanted} sockets opened, then no more", self.ready);
                return Err(Failure::Server(text));
            }
        }
        Ok(stopwatch::seconds(stopwatch::nanos() - start))
    }

    /// Closes every subscriber's socket at once.
    pub fn leave(&mut self) {
        for connection in &mut self.connections {
            connection.leave();
        }
        self.ready = 0;
    }

    /// Opens so many connections to publish on.
    ///
    /// # Errors
    /// When the server does not take them.
    pub fn add_publishers(&mut self, door: &Door, count: usize) -> Result<(), Failure> {
        for _ in 0..count {
            let publisher = Publisher::connect(door.address)?;
            let number = PUBLISHER + self.publishers.len() as u64;
            watch(
                &self.epoll,
                &publisher.socket,
                number,
                epoll::EventFlags::IN,
            )?;
            self.publishers.push(publisher);
        }
        Ok(())
    }

    /// From now on every publisher publishes on every channel, which leaves the order of a channel's
    /// events to the server. Counts from the next [`Fleet::begin`].
    pub fn share_publishers(&mut self) {
        self.shared = true;
    }

    /// Publishes on a channel, which has one publisher unless they are shared. `due_ns` is when it should have happened, from which its latency counts. It leaves with the next
    /// [`Fleet::turn`].
    pub fn publish(&mut self, door: &Door, channel: usize, due_ns: u64) {
        let turn = if self.shared { self.turns } else { channel };
        self.turns += 1;
        let index = turn % self.publishers.len();
        let publisher = &mut self.publishers[index];
        let mark = Mark {
            channel: channel as u16,
            sequence: self.ledger.publish(channel),
            micros: due_ns / 1_000,
        };
        let run = &self.run;
        let key = &self.channels[channel];
        door.publish(&mut publisher.out, key, run.bytes(), |out| {
            run.put(out, mark)
        });
        publisher.asked(stopwatch::nanos());
    }

    /// Publications that have no answer, of the channel's publisher.
    pub fn waiting(&self, channel: usize) -> usize {
        self.publishers[channel % self.publishers.len()].waiting()
    }

    /// Publications that have no answer.
    pub fn unanswered(&self) -> usize {
        self.publishers.iter().map(Publisher::waiting).sum()
    }

    /// Wakes [`Fleet::turn`] every so often, to the microsecond, which its time-out is too coarse for.
    ///
    /// # Errors
    /// Never for sensible intervals.
    pub fn wake_every(&mut self, interval: Duration) -> Result<(), Failure> {
        let time = Timespec {
            tv_sec: interval.as_secs() as _,
            tv_nsec: interval.subsec_nanos().into(),
        };
        let timer = Itimerspec {
            it_interval: time,
            it_value: time,
        };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &timer)?;
        Ok(())
    }

    /// Sends what is to be sent, waits until something comes or `patience` is over, and takes it in.
    ///
    /// # Errors
    /// When a publication is refused or a publisher's connection ends.
    pub fn turn(
        &mut self,
        patience: Duration,
        door: &Door,
        subscribe: &dyn Fn(usize) -> Vec<String>,
    ) -> Result<(), Failure> {
        for index in 0..self.publishers.len() {
            self.flush(index)?;
        }
        let timeout = Timespec {
            tv_sec: patience.as_secs() as _,
            tv_nsec: patience.subsec_nanos().into(),
        };
        let mut events = std::mem::take(&mut self.events);
        events.clear();
        match epoll::wait(
            &self.epoll,
            rustix::buffer::spare_capacity(&mut events),
            Some(&timeout),
        ) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in &events {
            // The record is packed: its fields are copied out, never referred to.
            let (number, flags) = (event.data.u64(), event.flags);
            if number < PUBLISHER {
                self.serve(number as usize, flags, door, subscribe);
            } else if number == TIMER {
                // It goes on only when what it has counted was read, timerfd_create(2). There is
                // nothing to read once it was set anew.
                match rustix::io::read(&self.timer, &mut [0; 8]) {
                    Ok(_) | Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
            } else {
                self.hear((number - PUBLISHER) as usize)?;
            }
        }
        self.events = events;
        Ok(())
    }

    /// [`Fleet::turn`] when nobody is coming in.
    ///
    /// # Errors
    /// As there.
    pub fn attend(&mut self, patience: Duration, door: &Door) -> Result<(), Failure> {
        self.turn(patience, door, &|_| Vec::new())
    }

    /// Attends until a moment of [`stopwatch::nanos`].
    ///
    /// # Errors
    /// As [`Fleet::turn`].
    pub fn attend_until(&mut self, end_ns: u64, door: &Door) -> Result<(), Failure> {
        loop {
            let left = end_ns.saturating_sub(stopwatch::nanos());
            if left == 0 {
                return Ok(());
            }
            let most = Duration::from_millis(100);
            self.attend(most.min(Duration::from_nanos(left)), door)?;
        }
    }

    /// Attends until everything published was answered and has arrived, or nothing did for so long.
    ///
    /// # Errors
    /// As [`Fleet::turn`].
    pub fn drain(&mut self, patience: Duration, door: &Door) -> Result<(), Failure> {
        let state = |fleet: &Self| (fleet.ledger.delivered, fleet.unanswered());
        let mut last = (state(self), stopwatch::nanos());
        while self.ledger.outstanding > 0 || self.unanswered() > 0 {
            self.attend(Duration::from_millis(50), door)?;
            let now = stopwatch::nanos();
            if state(self) != last.0 {
                last = (state(self), now);
            } else if now - last.1 > stopwatch::of(patience) {
                break;
            }
        }
        Ok(())
    }

    /// What is wrong with what arrived so far.
    pub fn faults(&self) -> Faults {
        let subscribers = self.connections.iter().filter(|one| one.counted);
        self.ledger
            .faults(subscribers.map(|connection| (connection.channel, &connection.seen)))
    }

    fn connect(&mut self, index: usize, door: &Door) -> Result<(), Failure> {
        let address = door.of_subscriber(index);
        let socket = Socket::new(
            Domain::for_address(address),
            Type::STREAM.nonblocking().cloexec(),
            Some(Protocol::TCP),
        )?;
        if let Some(source) = door.source(self.opened) {
            socket.bind(&source.into())?;
        }
        self.opened += 1;
        if self.connections[index].stalled.is_some() {
            Stalled::narrow(&socket)?;
        }
        match socket.connect(&address.into()) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(IN_PROGRESS) => {}
            Err(error) => return Err(error.into()),
        }
        let socket = TcpStream::from(socket);
        let until_writable = epoll::EventFlags::OUT;
        watch(&self.epoll, &socket, index as u64, until_writable)?;
        let connection = &mut self.connections[index];
        connection.socket = Some(socket);
        connection.stage = Stage::Connecting;
        Ok(())
    }

    /// One subscriber's socket is ready.
    fn serve(
        &mut self,
        index: usize,
        flags: epoll::EventFlags,
        door: &Door,
        subscribe: &dyn Fn(usize) -> Vec<String>,
    ) {
        let connection = &mut self.connections[index];
        let was_ready = connection.stage == Stage::Ready;
        let outcome = match connection.stage {
            Stage::Away => Ok(()),
            Stage::Connecting => {
                let refused = flags.intersects(epoll::EventFlags::ERR | epoll::EventFlags::HUP);
                let begun = entry::begin_upgrade(connection, index, refused, door);
                begun.and_then(|()| read_from_now_on(&self.epoll, connection, index))
            }
            _ => {
                let (run, ledger, recovered) = (&self.run, &mut self.ledger, &mut self.recovered);
                let now = stopwatch::nanos();
                let read = connection.read(&mut self.scratch, |connection, text| {
                    if let Some(mark) = run.find(text) {
                        if let Some(stalled) = &mut connection.stalled {
                            stalled.arrive(mark);
                        } else if connection.counted {
                            ledger.arrive(&mut connection.seen, mark, now);
                        }
                        return Ok(());
                    }
                    if let Some(stalled) = &mut connection.stalled {
                        stalled.hear(text);
                    }
                    *recovered += u64::from(entry::is_recovery(text));
                    entry::settle_in(connection, text, subscribe)
                });
                if connection.stage == Stage::Greeting && !door.talks() {
                    connection.stage = Stage::Ready;
                }
                read
            }
        };
        match outcome {
            Ok(()) => self.ready += usize::from(!was_ready && connection.stage == Stage::Ready),
            Err(why) => {
                connection.leave();
                self.ready -= usize::from(was_ready);
                if let Some(stalled) = connection.stalled.as_mut().filter(|_| was_ready) {
                    // Whether it was to be closed is said when they are all looked at.
                    return stalled.end();
                }
                self.failed += 1;
                self.first_failure.get_or_insert(why);
            }
        }
    }

    fn flush(&mut self, index: usize) -> Result<(), Failure> {
        let publisher = &mut self.publishers[index];
        if publisher.out.is_empty() {
            return Ok(());
        }
        publisher.flush()?;
        if publisher.blocked != publisher.out.is_empty() {
            return Ok(());
        }
        publisher.blocked = !publisher.blocked;
        let mut flags = epoll::EventFlags::IN;
        if publisher.blocked {
            flags |= epoll::EventFlags::OUT;
        }
        let data = epoll::EventData::new_u64(PUBLISHER + index as u64);
        epoll::modify(&self.epoll, &publisher.socket, data, flags)?;
        Ok(())
    }

    /// Takes in the answers to publications.
    fn hear(&mut self, index: usize) -> Result<(), Failure> {
        let mut refused = None;
        let (answers, last) = (&mut self.answers, &mut self.last_answer);
        let mut heard = 0;
        self.publishers[index].read(|answer| {
            if answer.status != 200 {
                let body = String::from_utf8_lossy(answer.body);
                refused.get_or_insert(format!("{} {body}", answer.status));
            }
            answers.add(answer.nanos);
            last.clear();
            last.extend_from_slice(answer.body);
            heard += 1;
        })?;
        self.answered += heard;
        match refused {
            None => Ok(()),
            Some(why) => Err(Failure::Server(format!("a publication was refused: {why}"))),
        }
    }
}

const IN_PROGRESS: i32 = rustix::io::Errno::INPROGRESS.raw_os_error();
fn read_from_now_on(epoll: &OwnedFd, connection: &Connection, index: usize) -> Result<(), Over> {
    let Some(socket) = &connection.socket else {
        return Ok(());
    };
    let data = epoll::EventData::new_u64(index as u64);
    let changed = epoll::modify(epoll, socket, data, epoll::EventFlags::IN);
    changed.map_err(|error| io::Error::from(error).to_string())
}

fn watch(
    epoll: &OwnedFd,
    what: impl std::os::fd::AsFd,
    number: u64,
    flags: epoll::EventFlags,
) -> io::Result<()> {
    Ok(epoll::add(
        epoll,
        what,
        epoll::EventData::new_u64(number),
        flags,
    )?)
}
