//! What becomes of the others when something goes wrong on a worker.

use std::net::{TcpListener, TcpStream};
use std::thread::JoinHandle;

use bytes::Bytes;
use serde_json::{Value, json};
use tungstenite::{Message, WebSocket};

use super::mailbox::{Accepted, Mailbox, mailbox};
use super::*;
use crate::auth::TokenSubject;
use crate::broker::faulty::Silent;
use crate::broker::{
    Answer, Broker, Deliver, Delivery, Entry, Error, Health, Present, Publication, Published,
    Recovery,
};
use crate::clock::Clock;
use crate::config::{Access, Secret};
use crate::event_log::EventLog;
use crate::http::{self, Parts};
use crate::metrics::Counters;
use crate::peers::Peers;
use crate::protocol::{ChannelKey, Event, Position};

/// Follows channels; publishing fails on `live_1` and panics everywhere else.
struct Explosive;

impl Broker for Explosive {
    fn start(&self, _: Arc<dyn Deliver>) -> Answer<'_, ()> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn subscribe(&self, _: &ChannelKey) -> Answer<'_, ()> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn unsubscribe(&self, _: &ChannelKey) -> Answer<'_, ()> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn publish(&self, publication: Publication) -> Answer<'_, Published> {
        assert!(publication.channel.as_str() == "live_1", "a fault of ours");
        Box::pin(std::future::ready(Err(Error::storage("a cause"))))
    }

    fn announce(&self, notice: Bytes) -> Answer<'_, ()> {
        Silent.announce(notice)
    }

    fn position(&self, channel: &ChannelKey) -> Answer<'_, Position> {
        Silent.position(channel)
    }

    fn recover(&self, _: &ChannelKey, _: &Position) -> Answer<'_, Recovery> {
        Box::pin(std::future::pending())
    }

    fn history(
        &self,
        _: &ChannelKey,
        _: Option<u64>,
        _: usize,
    ) -> Answer<'_, (Position, Vec<Entry>)> {
        Box::pin(std::future::pending())
    }

    fn enter(&self, channel: &ChannelKey, user_id: &Arc<str>) -> Answer<'_, bool> {
        Silent.enter(channel, user_id)
    }

    fn leave(&self, channel: &ChannelKey, user_id: &Arc<str>) -> Answer<'_, bool> {
        Broker::leave(&Silent, channel, user_id)
    }

    fn present(&self, channel: &ChannelKey, limit: usize) -> Answer<'_, Present> {
        Silent.present(channel, limit)
    }

    fn health(&self) -> Health {
        Health::Up
    }

    fn close(&self) -> Answer<'_, ()> {
        Box::pin(std::future::ready(Ok(())))
    }
}

/// One worker of its own thread, over loopback sockets.
struct Bench {
    services: Arc<Services>,
    router: Arc<Router>,
    listener: TcpListener,
    logs: tempfile::TempDir,
    guard: Option<crate::event_log::Guard>,
    worker: Option<JoinHandle<()>>,
}

fn outfit(services: &Arc<Services>, router: &Arc<Router>) -> Outfit {
    Outfit {
        index: 0,
        terms: Arc::new(Terms::of(&services.config(), services.node.clone())),
        services: services.clone(),
        router: router.clone(),
        counters: services.counters.workers[0].clone(),
        serials: Arc::new(AtomicU64::new(1)),
    }
}

impl Bench {
    fn new() -> Self {
        let logs = tempfile::TempDir::new().unwrap();
        let clock = Clock::system();
        let mut config = http::tests::config();
        config.logs.dir = logs.path().into();
        let (event_log, guard) = EventLog::open(&config.logs, clock.clone()).unwrap();
        let mut open = config.channels.0["post"].clone();
        open.publish = Access::Any;
        config.channels.0.insert("post".into(), open.clone());
        config.channels.0.insert("live".into(), open);
        let counters = Arc::new(Counters::new(1));
        let (mailbox, inbound) = mailbox();
        let router = Arc::new(Router::new(vec![mailbox], counters.clone()));
        let broker: Arc<dyn Broker> = Arc::new(Explosive);
        // No channel of these tests has presence: it only wants a runtime to begin with.
        let idle = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let live = crate::config::Live::new(config);
        let presence = crate::presence::Presence::new(
            broker.clone(),
            live.clone(),
            counters.clone(),
            clock.clone(),
            idle.handle().clone(),
        );
        let (node, store) = (Arc::<str>::from("n1"), Arc::new(Silent));
        let peers = Peers::new(
            router.clone(),
            node.clone(),
            broker.clone(),
            store.clone(),
            false,
        );
        let services = Arc::new(Services::new(Parts {
            presence,
            peers,
            tracer: Arc::new(crate::trace::Tracer::new(Arc::default()).0),
            router: router.clone(),
            access_backend: None,
            issuers: crate::auth::issuers::Issuers::default(),
            live: live.clone(),
            tls: crate::tls::Endpoint::new(None).unwrap(),
            secret: Secret::new(*b"a secret for tests, 32 bytes long"),
            clock,
            broker: broker.clone(),
            store,
            counters,
            event_log,
            node,
        }));
        let worker = spawn(outfit(&services, &router), inbound).unwrap();
        Self {
            services,
            router,
            listener: TcpListener::bind("127.0.0.1:0").unwrap(),
            logs,
            guard: Some(guard),
            worker: Some(worker),
        }
    }

    fn mailbox(&self) -> &Mailbox {
        &self.router.mailboxes()[0]
    }

    /// A socket that the worker serves.
    fn socket(&self) -> TcpStream {
        let client = TcpStream::connect(self.listener.local_addr().unwrap()).unwrap();
        client
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        let (stream, peer) = self.listener.accept().unwrap();
        stream.set_nonblocking(true).unwrap();
        let accepted = Accepted {
            stream,
            peer,
            load: self.mailbox().add_load(),
            permit: self.services.admission.accept_plain(peer.ip()),
        };
        self.mailbox().control(Control::Accept(accepted)).unwrap();
        client
    }

    /// A WebSocket of a user that has been greeted.
    fn client(&self, user: &str) -> WebSocket<TcpStream> {
        let subject = TokenSubject {
            user_id: user.to_owned(),
            ..TokenSubject::default()
        };
        let unix_ms = self.services.clock.unix_ms();
        let token = self.services.authority().issue(&subject, unix_ms).token;
        let url = format!("ws://localhost/ws?token={token}");
        let (mut client, _) = tungstenite::client(url, self.socket()).unwrap();
        assert_eq!(hear(&mut client)["type"], "connected");
        client
    }

    /// Ends the worker; what was logged as an error.
    fn errors(mut self) -> Vec<Value> {
        self.mailbox().control(Control::Stop).unwrap();
        self.worker.take().unwrap().join().unwrap();
        drop(self.guard.take());
        let files = std::fs::read_dir(self.logs.path()).unwrap();
        let lines: String = files
            .map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap())
            .collect();
        let lines = lines
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines
            .filter(|line| line["type"] == "error")
            .map(|line| line["data"].clone())
            .collect()
    }
}

fn ask(client: &mut WebSocket<TcpStream>, command: &Value) {
    client.send(Message::text(command.to_string())).unwrap();
}

fn hear(client: &mut WebSocket<TcpStream>) -> Value {
    let message = client.read().unwrap();
    serde_json::from_str(message.to_text().unwrap()).unwrap()
}

#[test]
fn a_panic_in_a_connections_task_ends_that_connection_alone() {
    let bench = Bench::new();
    let mut unlucky = bench.client("u1");
    let mut other = bench.client("u2");
    for client in [&mut unlucky, &mut other] {
        ask(client, &json!({"type": "subscribe", "channel": "post_1"}));
        assert_eq!(hear(client)["type"], "subscribed");
    }
    assert_eq!(bench.router.load(), 2);
    ask(
        &mut unlucky,
        &json!({"type": "publish", "channel": "post_1", "event": {"type": "x"}}),
    );
    assert!(unlucky.read().is_err());

    ask(&mut other, &json!({"type": "ping"}));
    assert_eq!(hear(&mut other)["type"], "pong");
    assert_eq!(bench.router.load(), 1);
    assert_eq!(bench.services.admission.connections(), 1);
    assert_eq!(bench.router.interest.counts(), [("post_1".to_owned(), 1)]);
    assert_eq!(bench.services.counters.errors.value(), 1);
    bench.router.deliver(Delivery {
        channel: ChannelKey::parse("post_1", 255).unwrap(),
        event: Event::parse(r#"{"type":"x"}"#, 255).unwrap(),
        position: None,
        trace: None,
        since_ns: 0,
    });
    assert_eq!(hear(&mut other)["type"], "x");
    // The slot and all that is shared are as good as new.
    let mut next = bench.client("u1");
    ask(
        &mut next,
        &json!({"type": "subscribe", "channel": "post_1"}),
    );
    assert_eq!(hear(&mut next)["type"], "subscribed");
    let errors = bench.errors();
    assert_eq!(errors.len(), 1);
    assert_eq!(errors[0]["userId"], "u1");
}

#[test]
fn what_a_panic_took_away_is_put_back() {
    let bench = Bench::new();
    let (_mailbox, inbound) = mailbox();
    let worker = Worker::new(outfit(&bench.services, &bench.router), inbound);
    drop(std::mem::take(&mut worker.state.borrow_mut().read));
    worker.state.borrow_mut().protocol.push(0);
    worker.mend(0);
    let state = worker.state.borrow();
    assert_eq!(state.read.len(), READ_BYTES);
    assert!(state.protocol.is_empty() && state.effects.is_empty());
    drop(state);
    bench.errors();
}

#[test]
fn a_failed_call_is_a_line_in_the_event_log() {
    let bench = Bench::new();
    let mut client = bench.client("u1");
    ask(
        &mut client,
        &json!({"type": "publish", "channel": "live_1", "event": {"type": "x"}}),
    );
    assert_eq!(hear(&mut client)["data"]["code"], "internal");
    assert_eq!(bench.services.counters.errors.value(), 1);
    // What went wrong here, and whom it kept from what.
    let errors = bench.errors();
    assert_eq!(
        errors[0],
        json!({"reason": "internal", "message": "publish"})
    );
    let about = ["userId", "reason", "channel"].map(|name| errors[1][name].as_str().unwrap());
    assert_eq!(about, ["u1", "internal", "live_1"]);
    assert_eq!(errors.len(), 2);
}
