//! Alarms of the server about itself: thresholds from the configuration, told to the log, the metrics and
//! a webhook.
//!
//! Not for: what needs a view of several nodes or of history; that is Prometheus' (`packaging/prometheus`).

pub mod alarm;
pub mod canary;
mod readings;
mod webhook;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::clock::{Clock, millis, rfc3339};
use crate::config::Live;
use crate::event_log::{Data, EventLog, Kind};
use crate::metrics::Observed;
use alarm::{Alarm, Alert, Change, Level};
use readings::Readings;
use webhook::Webhook;

/// How often is looked.
const TICK: Duration = Duration::from_secs(1);

/// What alarms are raised from, and told with.
pub struct Parts {
    /// Thresholds and webhook, as they are in force.
    pub live: Live,
    /// The time.
    pub clock: Clock,
    /// What is measured.
    pub observed: Arc<Observed>,
    /// Where it is told.
    pub event_log: EventLog,
    /// How full the fullest mailbox of a worker is, in percent.
    pub fullest: Box<dyn Fn() -> f64 + Send + Sync>,
}

/// Looks every second, until it is dropped.
pub async fn run(parts: Parts) {
    let mut readings = Readings::default();
    let mut alarms = Alert::ALL.map(|alert| (alert, Alarm::default()));
    let webhook = Webhook::start(parts.live.clone(), parts.clock.clone());
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let now = parts.clock.now();
        let config = parts.live.current();
        let levels = readings.take(&parts, &config);
        let clear_after_ms = millis(config.alerts.clear_after);
        for (alert, alarm) in &mut alarms {
            let level = levels.get(alert).copied();
            let Some(change) = alarm.judge(level, clear_after_ms, now.mono_ms) else {
                continue;
            };
            let told = told(*alert, change, level, &parts.observed.node, now.unix_ms);
            say(&parts.event_log, *alert, change, level);
            if config.alerts.webhook.is_some() {
                webhook.send(told);
            }
        }
        let firing = alarms
            .iter()
            .filter(|(_, alarm)| alarm.is_firing())
            .map(|(alert, _)| alert.name())
            .collect();
        parts.observed.counters.alerts.show(firing);
    }
}

/// What was measured, for those alerts that can be measured and are switched on.
type Levels = BTreeMap<Alert, Level>;

fn say(event_log: &EventLog, alert: Alert, change: Change, level: Option<Level>) {
    let value = level.map_or(0.0, |level| level.value);
    let threshold = level.map_or(0.0, |level| level.threshold);
    let (alert, unit) = (alert.name(), alert.unit());
    let message = match change {
        Change::Raised => {
            tracing::error!(alert, value, threshold, unit, "an alert fires");
            "alert firing"
        }
        Change::Resolved => {
            tracing::info!(alert, value, threshold, unit, "an alert is resolved");
            "alert resolved"
        }
    };
    event_log.record(
        Kind::Server,
        &Data {
            message: Some(message),
            reason: Some(alert),
            ..Data::default()
        },
    );
}

fn told(alert: Alert, change: Change, level: Option<Level>, node: &str, unix_ms: u64) -> Value {
    json!({
        "type": "alert",
        "id": uuid::Uuid::new_v4().to_string(),
        "alert": alert.name(),
        "state": match change {
            Change::Raised => "firing",
            Change::Resolved => "resolved",
        },
        "value": level.map(|level| level.value),
        "threshold": level.map(|level| level.threshold),
        "unit": alert.unit(),
        "node": node,
        "at": rfc3339(unix_ms),
    })
}
