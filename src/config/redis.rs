//! The second pass for `broker.*`.

use std::time::Duration;

use super::raw::Value;
use super::reader::Reader;
use super::{Backend, Broker, Redis, Secret, urls, values};

const BACKENDS: [(&str, Backend); 2] = [("embedded", Backend::Embedded), ("redis", Backend::Redis)];
/// More replicas than anybody has.
const REPLICAS: u64 = 16;

pub(super) fn broker(reader: &mut Reader) -> Option<Broker> {
    let backend = reader.read("broker.backend", values::word(&BACKENDS));
    let url = reader.text_or_file("broker.redis.url", urls::redis);
    let pubsub_url = reader.text_or_file("broker.redis.pubsub_url", |value| match value {
        Value::Text(text) if text.is_empty() => Ok(String::new()),
        value => urls::redis(value),
    });
    let prefix = reader.read("broker.redis.prefix", urls::redis_prefix);
    let authorities = reader.read("broker.redis.ca_file", values::certificates);
    let wait_replicas = reader.read("broker.redis.wait_replicas", values::count(0, REPLICAS));
    let wait_timeout = reader.read(
        "broker.redis.wait_timeout",
        values::duration(Duration::from_millis(10), Duration::from_secs(2)),
    );
    let secret = |text: String| Secret::new(text.into_bytes());
    let (url, pubsub_url) = (url?, pubsub_url?);
    let has_own_pubsub = !pubsub_url.is_empty() && pubsub_url != url;
    Some(Broker {
        backend: backend?,
        redis: Redis {
            url: secret(url),
            pubsub_url: has_own_pubsub.then(|| secret(pubsub_url)),
            prefix: prefix?,
            authorities: authorities?,
            wait_replicas: u32::try_from(wait_replicas?).unwrap_or(0),
            wait_timeout: wait_timeout?,
        },
    })
}
