//! What is printed on stdout when the server runs: where it listens, and with `--dev` how to try it.

use std::net::SocketAddr;

use crate::auth::TokenSubject;
use crate::http::Services;

/// What was bound and made.
#[derive(Debug)]
pub struct Said<'a> {
    /// HTTP and WebSockets.
    pub address: SocketAddr,
    /// Stats and metrics.
    pub metrics: SocketAddr,
    /// Whether by TLS.
    pub metrics_secure: bool,
    /// The key that `--dev` made.
    pub dev_api_key: Option<&'a str>,
}

/// The user of the token that `--dev` prints.
const DEV_USER: &str = "dev";

/// Makes an API key for this run, so that a backend can be tried at once.
pub fn dev_api_key() -> String {
    format!("dev-{}", uuid::Uuid::new_v4().simple())
}

/// Prints it. A stdout that is closed is no reason not to serve.
pub fn say(said: &Said<'_>, services: &Services) {
    use std::io::Write as _;
    let text = text(said, services);
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn text(said: &Said<'_>, services: &Services) -> String {
    let Said {
        address,
        metrics,
        metrics_secure,
        dev_api_key,
    } = said;
    let is_secure = services.tls.is_secure();
    let (http, ws) = if is_secure {
        ("https", "wss")
    } else {
        ("http", "ws")
    };
    let metrics_http = if *metrics_secure { "https" } else { "http" };
    let mut text =
        format!("listening on {http}://{address}\nmetrics on {metrics_http}://{metrics}\n");
    if let Some(key) = dev_api_key {
        let subject = TokenSubject {
            user_id: DEV_USER.to_owned(),
            ..TokenSubject::default()
        };
        let issued = services
            .authority()
            .issue(&subject, services.clock.unix_ms());
        let token = issued.token;
        text.push_str(&format!(
            "\n\
             test page   {http}://{address}/test/jwt-websocket\n\
             stats       {metrics_http}://{metrics}/stats\n\
             websocket   {ws}://{address}/ws?token=TOKEN\n\
             \n\
             who am I (a token of the user \"{DEV_USER}\"):\n  \
             curl -s -H 'Authorization: Bearer {token}' {http}://{address}/api/auth/wallet\n\
             publish to everybody who looks at post 42 (a key for this run):\n  \
             curl -s -H 'X-API-Key: {key}' -H 'Content-Type: application/json' \
             -d '{{\"channel\":\"post_42\",\"event\":{{\"type\":\"post_liked\"}}}}' \
             {http}://{address}/api/publish\n\n"
        ));
    }
    text
}
