//! The Redis behind the server: version, policy, what it keeps, who has it beside it.

use fanfare::broker::redis::{Expected, examine};
use fanfare::config::{Backend, Config};

use super::Finding;

const WHAT: &str = "redis";

/// Nothing where Redis has no part.
pub(super) fn look(config: &Config) -> Vec<Finding> {
    let redis = &config.broker.redis;
    if config.broker.backend != Backend::Redis {
        return Vec::new();
    }
    let keeps = Expected {
        keeps: true,
        replicas: redis.wait_replicas,
    };
    let mut asked = vec![(&redis.url, keeps)];
    if let Some(pubsub_url) = &redis.pubsub_url {
        asked.push((pubsub_url, Expected::default()));
    }
    let mut findings = Vec::new();
    for (url, expected) in asked {
        let text = String::from_utf8_lossy(url.expose()).into_owned();
        for one in examine(&text, redis.authorities.clone(), expected) {
            let server = one.server;
            match one.about {
                Err(why) => findings.push(Finding::bad(
                    WHAT,
                    format!("{server}: {why}"),
                    "is it running, and are broker.redis.url, its user and its password right?",
                )),
                Ok(about) if one.flaws.is_empty() => {
                    findings.push(Finding::good(WHAT, format!("{server}: {about}")));
                }
                Ok(_) => findings.extend(one.flaws.into_iter().map(|flaw| {
                    let found = format!("{server}: {}", flaw.found);
                    match flaw.is_fatal {
                        true => Finding::bad(WHAT, found, flaw.cure),
                        false => Finding::warning(WHAT, found, flaw.cure),
                    }
                })),
            }
        }
    }
    findings
}
