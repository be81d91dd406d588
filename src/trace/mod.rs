//! Traces: what a request caused, as spans, for an OpenTelemetry receiver.
//!
//! Whether a request is recorded is decided once, where it comes in ([`Tracer::request`]); what follows
//! from it carries an `Option<Context>`, which is `None` for all the others. So where nothing is traced,
//! nothing is done, asked or allocated. Recording never waits: spans go into a bounded queue, and what
//! does not fit is dropped and counted.
//!
//! Not for: the log (`logging`, the crate `tracing`), or figures (`metrics`).

pub mod context;
mod export;
mod otlp;
mod sampling;

use std::sync::Arc;

use aws_lc_rs::rand;
use tokio::sync::mpsc;

use crate::counter::Counter;
use crate::stopwatch;
use context::Caller;
use sampling::Budget;

pub use context::Context;
pub use export::{Exporter, Target};
pub use sampling::Sampling;

/// Spans that wait to be sent; what is more is dropped.
const WAITING_MAX: usize = 4_096;

/// Begins spans. One per process.
#[derive(Debug)]
pub struct Tracer {
    outlet: Outlet,
    budget: Budget,
}

/// Spans on their way out, for an [`Exporter`].
#[derive(Debug)]
pub struct Waiting {
    records: mpsc::Receiver<Record>,
    counts: Arc<Counts>,
}

/// What became of spans.
#[derive(Debug, Default)]
pub struct Counts {
    /// Taken by the receiver.
    pub exported: Counter,
    /// Not taken by the receiver, or there is none any more.
    pub refused: Counter,
    /// There was no room for them in the queue.
    pub dropped: Counter,
}

/// Something that takes time. It ends, and is sent off, when it is dropped.
#[derive(Debug)]
pub struct Span {
    outlet: Outlet,
    record: Option<Box<Record>>,
}

/// An event that is traced, on its way to the workers of a node.
#[derive(Debug)]
pub struct Passage {
    /// The span that published it.
    pub parent: Context,
    /// When it was posted to the workers, in nanoseconds since 1970.
    pub since_ns: u64,
}

/// What a span is to its surroundings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It answers a request.
    Server,
    /// It hands something over for others.
    Producer,
    /// It takes what was handed over.
    Consumer,
}

/// What is said of a span.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A word.
    Text(String),
    /// Yes or no.
    Flag(bool),
    /// A count.
    Number(u64),
}

/// A span as it is sent.
#[derive(Debug)]
struct Record {
    context: Context,
    parent: Option<[u8; 8]>,
    role: Role,
    name: String,
    begin_ns: u64,
    end_ns: u64,
    attributes: Vec<(&'static str, Value)>,
    fault: Option<String>,
}

#[derive(Debug, Clone)]
struct Outlet {
    waiting: mpsc::Sender<Record>,
    counts: Arc<Counts>,
}

impl Tracer {
    /// A tracer, and the other end of its queue.
    pub fn new(counts: Arc<Counts>) -> (Self, Waiting) {
        let (waiting, records) = mpsc::channel(WAITING_MAX);
        let outlet = Outlet {
            waiting,
            counts: Arc::clone(&counts),
        };
        let tracer = Self {
            outlet,
            budget: Budget::default(),
        };
        (tracer, Waiting { records, counts })
    }

    /// The span of something that came in, if it is to be recorded. `traceparent` is what its caller
    /// said; without `sampling` nothing is.
    pub fn request(
        &self,
        sampling: Option<Sampling>,
        traceparent: Option<&[u8]>,
        role: Role,
    ) -> Option<Span> {
        let sampling = sampling?;
        let caller = traceparent.and_then(Caller::parse);
        let second = stopwatch::nanos() / 1_000_000_000;
        let is_wanted =
            sampling.wants(caller, roll) && self.budget.take(sampling.per_second, second);
        is_wanted.then(|| match caller {
            Some(caller) => self.span(caller.context, role),
            None => self.begin(Context::root(), None, role, stopwatch::unix_nanos()),
        })
    }

    /// A span below `parent`.
    pub fn span(&self, parent: Context, role: Role) -> Span {
        self.span_since(parent, role, stopwatch::unix_nanos())
    }

    /// A span below `parent` that began at `begin_ns`.
    pub fn span_since(&self, parent: Context, role: Role, begin_ns: u64) -> Span {
        self.begin(parent.child(), Some(parent.span_id), role, begin_ns)
    }

    fn begin(&self, context: Context, parent: Option<[u8; 8]>, role: Role, begin_ns: u64) -> Span {
        Span {
            outlet: self.outlet.clone(),
            record: Some(Box::new(Record {
                context,
                parent,
                role,
                name: String::new(),
                begin_ns,
                end_ns: 0,
                attributes: Vec::new(),
                fault: None,
            })),
        }
    }
}

impl Passage {
    /// Of an event whose publishing is recorded; it is posted now.
    pub fn of(parent: Context) -> Arc<Self> {
        Arc::new(Self {
            parent,
            since_ns: stopwatch::unix_nanos(),
        })
    }
}

impl Span {
    /// What children need to know of it.
    pub fn context(&self) -> Context {
        self.record
            .as_ref()
            .map_or_else(Context::default, |record| record.context)
    }

    /// What it is called: few names, nothing that comes from outside.
    pub fn name(&mut self, name: String) {
        self.change(|record| record.name = name);
    }

    /// Says something of it.
    pub fn say(&mut self, key: &'static str, value: Value) {
        self.change(|record| record.attributes.push((key, value)));
    }

    /// It comes to nothing, unless [`Span::succeeds`] is called later.
    pub fn fails(&mut self, why: String) {
        self.change(|record| record.fault = Some(why));
    }

    /// It comes to what it should.
    pub fn succeeds(&mut self) {
        self.change(|record| record.fault = None);
    }

    fn change(&mut self, change: impl FnOnce(&mut Record)) {
        if let Some(record) = &mut self.record {
            change(record);
        }
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        let Some(mut record) = self.record.take() else {
            return;
        };
        record.end_ns = stopwatch::unix_nanos().max(record.begin_ns);
        if self.outlet.waiting.try_send(*record).is_err() {
            self.outlet.counts.dropped.increment();
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

impl From<bool> for Value {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}

fn roll() -> u32 {
    let mut bytes = [0; 4];
    // Without randomness nothing is chosen.
    match rand::fill(&mut bytes) {
        Ok(()) => u32::from_ne_bytes(bytes),
        Err(_) => Sampling::ALL - 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Option<Sampling> = Some(Sampling {
        per_million: Sampling::ALL,
        per_second: u32::MAX,
    });

    #[test]
    fn spans_of_one_request_hang_together() {
        let (tracer, mut waiting) = Tracer::new(Arc::default());
        let caller = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let request = tracer
            .request(ALL, Some(caller.as_bytes()), Role::Server)
            .unwrap();
        drop(tracer.span(request.context(), Role::Producer));
        drop(request);
        let (child, parent) = (
            waiting.records.try_recv().unwrap(),
            waiting.records.try_recv().unwrap(),
        );
        assert_eq!(
            Context::parse(caller.as_bytes()).map(|it| it.span_id),
            parent.parent
        );
        assert_eq!(child.parent, Some(parent.context.span_id));
        assert_eq!(child.context.trace_id, parent.context.trace_id);
        assert!(parent.begin_ns <= child.begin_ns && child.end_ns <= parent.end_ns);
        let root = tracer
            .request(ALL, Some(b"nonsense"), Role::Server)
            .unwrap();
        assert_ne!(root.context().trace_id, parent.context.trace_id);
    }

    #[test]
    fn nothing_is_recorded_where_nothing_is_asked_for() {
        let (tracer, _waiting) = Tracer::new(Arc::default());
        let caller = Some(b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".as_slice());
        assert!(tracer.request(None, caller, Role::Server).is_none());
        let none = Some(Sampling {
            per_million: 0,
            per_second: 10,
        });
        assert!(tracer.request(none, None, Role::Server).is_none());
        assert!(tracer.request(none, caller, Role::Server).is_some());
    }

    #[test]
    fn what_does_not_fit_is_dropped_and_counted() {
        let counts = Arc::<Counts>::default();
        let (tracer, waiting) = Tracer::new(Arc::clone(&counts));
        for _ in 0..WAITING_MAX + 7 {
            drop(tracer.request(ALL, None, Role::Server));
        }
        assert_eq!(counts.dropped.value(), 7);
        drop(waiting);
        drop(tracer.request(ALL, None, Role::Server));
        assert_eq!(counts.dropped.value(), 8);
    }
}
