//! What load balancers and people ask first: alive, ready, and what is there.

use hyper::StatusCode;
use hyper::header::{CACHE_CONTROL, HeaderValue, RETRY_AFTER};
use serde_json::json;

use super::Services;
use super::reply::{self, Reply};
use crate::broker::Health;

/// The description of everything served here.
pub const OPENAPI: &str = include_str!("openapi.json");

/// `GET /health`: whoever can answer is alive.
pub fn health(services: &Services) -> Reply {
    reply::ok(&json!({
        "status": "ok",
        "node": &*services.node,
        "version": env!("CARGO_PKG_VERSION"),
    }))
}

/// `GET /ready`: whether new clients should be sent here.
pub fn ready(services: &Services) -> Reply {
    readiness(
        &services.store.health(),
        &services.broker.health(),
        services.is_draining(),
        services.counters.canary.is_silent(),
    )
}

/// `GET /openapi.json`
pub fn openapi() -> Reply {
    reply::document(OPENAPI)
}

/// The public halves of our keys (RFC 7517): nobody's secret, and kept for as long as others keep them
/// before they ask again.
pub fn keys(services: &Services) -> Reply {
    let authority = services.authority();
    let keys = authority.ring().published(services.clock.unix_ms());
    let mut reply = reply::ok(&json!({ "keys": keys }));
    let kept = HeaderValue::from_static("public, max-age=300");
    reply.headers_mut().insert(CACHE_CONTROL, kept);
    reply
}

fn readiness(store: &Health, broker: &Health, draining: bool, silent: bool) -> Reply {
    let down = |health: &Health| matches!(health, Health::Down(_));
    let mut checks = json!({
        "store": word(store),
        "broker": word(broker),
        "draining": draining,
    });
    if silent {
        checks["canary"] = "down: the server's own client gets no events".into();
    }
    if !(draining || silent || down(store) || down(broker)) {
        return reply::ok(&json!({"ready": true, "checks": checks}));
    }
    let body = json!({
        "ready": false,
        "checks": checks,
        "error": "Not ready",
        "code": "not_ready",
    });
    let mut reply = reply::json(StatusCode::SERVICE_UNAVAILABLE, &body);
    let headers = reply.headers_mut();
    headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
    reply
}

fn word(health: &Health) -> String {
    match health {
        Health::Up => "up".to_owned(),
        Health::Degraded(why) => format!("degraded: {why}"),
        Health::Down(why) => format!("down: {why}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_no_is_a_no_and_the_answer_says_whose() {
        let status = |store: Health, broker: Health, draining| {
            readiness(&store, &broker, draining, false)
                .status()
                .as_u16()
        };
        let down = || Health::Down("disk".into());
        assert_eq!(status(Health::Up, Health::Up, false), 200);
        assert_eq!(
            status(Health::Degraded("slow".into()), Health::Up, false),
            200
        );
        assert_eq!(status(down(), Health::Up, false), 503);
        assert_eq!(status(Health::Up, down(), false), 503);
        assert_eq!(status(Health::Up, Health::Up, true), 503);
        let silent = readiness(&Health::Up, &Health::Up, false, true);
        assert_eq!(silent.status(), 503);
        assert_eq!(word(&down()), "down: disk");
        assert!(
            readiness(&down(), &Health::Up, false, false)
                .headers()
                .contains_key(RETRY_AFTER)
        );
    }
}
