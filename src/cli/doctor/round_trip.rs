//! What a browser does, through server.public_url: whatever stands in between is found.

use std::net::ToSocketAddrs as _;
use std::sync::Arc;
use std::time::Duration;

use fanfare::auth::{Authority, TokenSubject, keys};
use fanfare::clock::Clock;
use fanfare::config::Config;
use fanfare::probe::{Problem, Socket, Target};
use fanfare::stopwatch;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use serde_json::json;
use url::Url;

use super::Finding;
use crate::cli::operator::Operator;

const WHAT: &str = "round trip";
const PATIENCE: Duration = Duration::from_secs(5);
const USER: &str = "fanfare-doctor";

pub(super) fn make(config: &Config, clock: &Clock, server: &mut Operator) -> Finding {
    if config.server.public_url.is_empty() {
        let found = "server.public_url is empty: what browsers use is not known";
        return Finding::warning(WHAT, found, "set it to https://your.host");
    }
    match attempt(config, clock, server) {
        Ok(took) => {
            let ms = took.as_millis();
            let found = format!(
                "an event came through {} in {ms} ms",
                config.server.public_url
            );
            Finding::good(WHAT, found)
        }
        Err(why) => {
            let found = format!("{}: {why}", config.server.public_url);
            let cure = "see \"Behind nginx or haproxy\" in the README";
            Finding::bad(WHAT, found, cure)
        }
    }
}

fn attempt(config: &Config, clock: &Clock, server: &mut Operator) -> Result<Duration, String> {
    let secret =
        keys::existing(&config.auth, &config.data_dir).map_err(|error| error.to_string())?;
    let channel = config
        .channels
        .open_channel(USER)
        .ok_or("no channel type lets a client subscribe")?;
    let subject = TokenSubject {
        user_id: USER.to_owned(),
        channels: vec![channel.clone()],
        ttl: Some(Duration::from_secs(60)),
        ..TokenSubject::default()
    };
    let token = Authority::new(&secret, &config.auth)
        .issue(&subject, clock.unix_ms())
        .token;
    let target = target(&config.server.public_url)?;
    let say = |problem: Problem| problem.to_string();
    let mut socket = Socket::open(&target, &token, PATIENCE).map_err(say)?;
    socket.subscribe(&channel).map_err(say)?;
    let mark = format!("{:x}", stopwatch::nanos());
    let body = json!({ "channel": channel, "event": { "type": "doctor", "mark": mark } });
    let start_ns = stopwatch::nanos();
    server
        .post("/api/publish", &body, &[])
        .map_err(|failure| failure.to_text())?;
    socket.event(&mark).map_err(say)?;
    let took = Duration::from_nanos(stopwatch::nanos() - start_ns);
    socket.close();
    Ok(took)
}

fn target(public_url: &str) -> Result<Target, String> {
    let url = Url::parse(public_url).map_err(|error| error.to_string())?;
    let host = url.host_str().ok_or("it has no host")?.to_owned();
    let port = url.port_or_known_default().ok_or("it has no port")?;
    let address = (host.trim_matches(['[', ']']), port)
        .to_socket_addrs()
        .map_err(|error| format!("{host} cannot be found: {error}"))?
        .next()
        .ok_or_else(|| format!("{host} has no address"))?;
    let is_secure = url.scheme() == "https";
    let tls = if is_secure {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned())
            .map_err(|error| error.to_string())?;
        Some((Arc::new(config), name))
    } else {
        None
    };
    let scheme = if is_secure { "wss" } else { "ws" };
    let path = url.path().trim_end_matches('/');
    Ok(Target {
        url: format!("{scheme}://{host}:{port}{path}/ws"),
        address,
        tls,
    })
}
