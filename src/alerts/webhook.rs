//! Telling a webhook, again and again until it has it.

use std::time::Duration;

use aws_lc_rs::hmac;
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, USER_AGENT as AGENT};
use hyper::{Request, Uri};
use serde_json::Value;
use tokio::sync::mpsc;

use crate::clock::Clock;
use crate::config::{AlertWebhook, Live};
use crate::outgoing::{Outgoing, SIGNATURE, USER_AGENT, chain, signature};

/// Alerts that may wait; what is more is only in the log and in the metrics.
const WAITING_MAX: usize = 64;
/// For one attempt.
const PATIENCE: Duration = Duration::from_secs(10);
/// After the first failure; twice as long after each further one, up to the last.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// About an hour in all.
const ATTEMPTS: u32 = 20;

/// The way to the webhook.
pub(super) struct Webhook(mpsc::Sender<Value>);

impl Webhook {
    /// Starts the task that tells it. It ends with this.
    pub(super) fn start(live: Live, clock: Clock) -> Self {
        let (tx, mut rx) = mpsc::channel::<Value>(WAITING_MAX);
        tokio::spawn(async move {
            // In order: "resolved" never overtakes "firing".
            while let Some(alert) = rx.recv().await {
                tell(&live, &clock, &alert).await;
            }
        });
        Self(tx)
    }

    pub(super) fn send(&self, alert: Value) {
        if self.0.try_send(alert).is_err() {
            tracing::warn!("too many alerts wait for alerts.webhook_url: one is not told");
        }
    }
}

async fn tell(live: &Live, clock: &Clock, alert: &Value) {
    let mut pause = FIRST_PAUSE;
    for attempt in 1..=ATTEMPTS {
        // As configured now: a reload may be what mends it.
        let config = live.current();
        let Some(webhook) = &config.alerts.webhook else {
            return;
        };
        match post(webhook, clock, alert).await {
            Ok(()) => return,
            Err(why) => {
                tracing::warn!(attempt, %why, "alerts.webhook_url did not take an alert");
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    tracing::error!("alerts.webhook_url took an alert not once: given up");
}

async fn post(webhook: &AlertWebhook, clock: &Clock, alert: &Value) -> Result<(), String> {
    let uri: Uri = webhook.url.parse().map_err(|error| format!("{error}"))?;
    let body = alert.to_string();
    let mut request = Request::post(&uri)
        .header(CONTENT_TYPE, "application/json")
        .header(AGENT, USER_AGENT);
    if let Some(secret) = &webhook.secret {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose());
        let signed = signature(&key, clock.unix_ms() / 1000, &body);
        request = request.header(SIGNATURE, signed);
    }
    let request = request
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| error.to_string())?;
    // One alert in a while: no connection is worth keeping.
    let outgoing = Outgoing::new(&uri, webhook.authorities.as_deref(), PATIENCE, 0)
        .map_err(|error| error.to_string())?;
    let response = tokio::time::timeout(PATIENCE, outgoing.send(request))
        .await
        .map_err(|_| "no answer in time".to_owned())?
        .map_err(|error| chain(&error))?;
    match response.status() {
        status if status.is_success() => Ok(()),
        status => Err(format!("answered {status}")),
    }
}
