//! The second pass for `alerts.*`, but for the canary.

use std::time::Duration;

use super::reader::Reader;
use super::{AlertWebhook, Alerts, urls, values};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

pub(super) fn alerts(reader: &mut Reader, authorities: Option<&[u8]>) -> Option<Alerts> {
    let within = |most| values::duration(Duration::ZERO, most);
    let failures = reader.read(
        "alerts.auth_failures_per_minute",
        values::count(0, u32::MAX.into()),
    );
    let queue_percent = reader.read("alerts.queue_percent", values::count(0, 100));
    let store_percent = reader.read("alerts.store_percent", values::count(0, 100));
    let broker_down = reader.read("alerts.broker_down", within(HOUR));
    let certificate = reader.read("alerts.certificate", within(90 * DAY));
    let canary_latency = reader.read("alerts.canary_latency", within(5 * SECOND));
    let clear_after = reader.read("alerts.clear_after", within(HOUR));
    let url = reader.read("alerts.webhook_url", urls::callback);
    let secret = reader.secret("alerts.webhook_secret");
    let (url, secret) = (url?, secret?);
    Some(Alerts {
        auth_failures_per_minute: u32::try_from(failures?).unwrap_or(u32::MAX),
        queue_percent: u8::try_from(queue_percent?).unwrap_or(100),
        store_percent: u8::try_from(store_percent?).unwrap_or(100),
        broker_down: broker_down?,
        certificate: certificate?,
        canary_latency: canary_latency?,
        clear_after: clear_after?,
        webhook: (!url.is_empty()).then(|| AlertWebhook {
            url,
            secret,
            authorities: authorities.map(<[u8]>::to_vec),
        }),
    })
}
