//! The canary: a client of the server's own that signs in, subscribes, publishes and waits for the event,
//! again and again, as one of its users would.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::runtime::Handle;

use crate::auth::TokenSubject;
use crate::broker::Publication;
use crate::config::Config;
use crate::http::Services;
use crate::patience::{ANSWER_TIMEOUT, within};
use crate::probe::{Problem, Secured, Socket, Target};
use crate::protocol::{ChannelKey, Event};
use crate::stopwatch;

/// For everything from the TCP connection to the event.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often it is looked whether it is time.
const STEP: Duration = Duration::from_millis(200);
/// The canary's user; the node's name stands behind it.
const USER: &str = "fanfare-canary";
/// Its token need not outlive its round.
const TOKEN_TTL: Duration = Duration::from_secs(60);

/// Sings in the background, as often as the configuration says, for as long as the process lives.
///
/// # Errors
/// When there is no thread to be had.
pub fn start(
    services: Arc<Services>,
    address: SocketAddr,
    tls: impl Fn() -> Option<Secured> + Send + 'static,
    runtime: Handle,
) -> std::io::Result<()> {
    std::thread::Builder::new()
        .name("canary".into())
        .spawn(move || {
            let mut due_ns = 0;
            loop {
                std::thread::sleep(STEP);
                let config = services.config();
                let Some(interval) = config.canary else {
                    continue;
                };
                if services.is_draining() {
                    return;
                }
                if stopwatch::nanos() < due_ns {
                    continue;
                }
                due_ns = stopwatch::nanos() + stopwatch::of(interval);
                let sung = sing(&services, &config, address, tls(), &runtime);
                let canary = &services.counters.canary;
                match sung {
                    Ok(latency) => canary.heard(latency),
                    Err(problem) => {
                        if canary.silent(PATIENCE) {
                            tracing::warn!(%problem, "the canary is silent");
                        }
                    }
                }
            }
        })
        .map(drop)
}

/// One round; from publishing to the event's arrival.
fn sing(
    services: &Services,
    config: &Config,
    address: SocketAddr,
    tls: Option<Secured>,
    runtime: &Handle,
) -> Result<Duration, Problem> {
    let user = format!("{USER}-{}", services.node);
    let channel = config
        .channels
        .open_channel(&user)
        .and_then(|key| ChannelKey::parse(&key, usize::MAX).ok())
        .ok_or_else(|| Problem::Broken("no channel type lets the canary subscribe".into()))?;
    let subject = TokenSubject {
        user_id: user,
        channels: vec![channel.to_string()],
        ttl: Some(TOKEN_TTL),
        ..TokenSubject::default()
    };
    let token = services
        .authority()
        .issue(&subject, services.clock.unix_ms())
        .token;
    let target = Target::of_listener(address, tls);
    let mut socket = Socket::open(&target, &token, PATIENCE)?;
    socket.subscribe(channel.as_str())?;
    let mark = uuid::Uuid::new_v4().simple().to_string();
    let event = json!({ "type": "canary", "mark": mark });
    let event = Event::parse(&event.to_string(), usize::MAX)
        .map_err(|error| Problem::Broken(error.to_string()))?;
    let publication = Publication {
        // Live events go on while the store is full, and what the store is like has an alert of its own.
        retention: None,
        channel,
        event,
        idempotency_key: None,
        trace: None,
    };
    let start_ns = stopwatch::nanos();
    runtime
        .block_on(within(ANSWER_TIMEOUT, services.broker.publish(publication)))
        .map_err(|error| Problem::Broken(error.to_string()))?;
    socket.event(&mark)?;
    let latency = Duration::from_nanos(stopwatch::nanos() - start_ns);
    socket.close();
    Ok(latency)
}
