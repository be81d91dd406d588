//! `POST /api/history`: what was published to a channel. Contract section 5.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use super::Services;
use super::backend_api::addressee;
use super::errors::ApiError;
use super::identity::require_backend;
use super::reply::{self, Reply};
use super::request::Call;
use crate::broker::Entry;
use crate::patience::{ANSWER_TIMEOUT, within};
use crate::protocol::{ChannelKey, Position};
use crate::ws::frame::event_text;

/// Events when no `limit` is named, and the largest `limit`.
const EVENTS: u64 = 100;
const EVENTS_MAX: u64 = 1_000;
/// Bytes of events in one answer; the newest event comes whatever its size. Who asks goes on with
/// `before`.
const BYTES_MAX: usize = 4 << 20;

/// Answers it.
pub async fn read(services: &Services, call: &Call) -> Result<Reply, ApiError> {
    require_backend(services, call)?;
    let body: Body = call.json()?;
    let config = &*services.config();
    let channel = addressee(&body.channel.unwrap_or_default(), config)?;
    let limit = whole(body.limit.as_ref(), 1, EVENTS_MAX, "limit", "invalid_limit")?;
    let before = whole(
        body.before.as_ref(),
        0,
        u64::MAX,
        "before",
        "invalid_before",
    )?;
    let rule = config.channels.rule(channel.kind());
    if rule.is_none_or(|rule| rule.history.is_none()) {
        return Err(ApiError::bad_request(
            "no_history",
            "The channel keeps no history",
        ));
    }
    let limit = usize::try_from(limit.unwrap_or(EVENTS)).unwrap_or(usize::MAX);
    let history = services.broker.history(&channel, before, limit);
    let (position, entries) = within(ANSWER_TIMEOUT, history).await?;
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Answer<'a> {
        success: bool,
        channel_key: &'a str,
        epoch: &'a str,
        offset: u64,
        events: Vec<Box<RawValue>>,
    }
    Ok(reply::ok(&Answer {
        success: true,
        channel_key: channel.as_str(),
        epoch: position.epoch.as_str(),
        offset: position.offset,
        events: views(&channel, &position, &entries, BYTES_MAX),
    }))
}

#[derive(Deserialize)]
struct Body {
    channel: Option<Value>,
    limit: Option<Value>,
    before: Option<Value>,
}

fn whole(
    given: Option<&Value>,
    least: u64,
    most: u64,
    name: &str,
    code: &'static str,
) -> Result<Option<u64>, ApiError> {
    let Some(given) = given else {
        return Ok(None);
    };
    match given.as_u64().filter(|it| (least..=most).contains(it)) {
        Some(number) => Ok(Some(number)),
        None if most == u64::MAX => Err(ApiError::bad_request(
            code,
            format!("{name} must be a whole number"),
        )),
        None => Err(ApiError::bad_request(
            code,
            format!("{name} must be {least} to {most}"),
        )),
    }
}

/// The newest of the entries as subscribers get them, oldest first.
fn views(
    channel: &ChannelKey,
    position: &Position,
    entries: &[Entry],
    bytes_max: usize,
) -> Vec<Box<RawValue>> {
    let mut bytes = 0;
    let mut views = Vec::with_capacity(entries.len());
    for entry in entries.iter().rev() {
        let at = Position {
            epoch: position.epoch.clone(),
            offset: entry.offset,
        };
        let text = event_text(channel, &entry.event, Some(&at));
        bytes += text.len();
        if bytes > bytes_max && !views.is_empty() {
            break;
        }
        // Whatever is stored was an event when it was published.
        views.extend(RawValue::from_string(text).ok());
    }
    views.reverse();
    views
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Epoch, Event};

    #[test]
    fn the_newest_that_fit_are_shown_and_always_one() {
        let channel = ChannelKey::parse("post_1", 255).unwrap();
        let position = Position {
            epoch: Epoch::new("e"),
            offset: 3,
        };
        let entries: Vec<Entry> = (1..=3)
            .map(|offset| Entry {
                offset,
                event: Event::parse(r#"{"type":"x"}"#, 100).unwrap(),
            })
            .collect();
        let one = event_text(&channel, &entries[0].event, Some(&position)).len();
        let offsets = |bytes_max| -> Vec<u64> {
            let views = views(&channel, &position, &entries, bytes_max);
            let offset = |view: &RawValue| -> u64 {
                let view: Value = serde_json::from_str(view.get()).unwrap();
                view["_meta"]["offset"].as_u64().unwrap()
            };
            views.iter().map(|view| offset(view)).collect()
        };
        assert_eq!(offsets(usize::MAX), [1, 2, 3]);
        assert_eq!(offsets(2 * one), [2, 3]);
        assert_eq!(offsets(0), [3]);
    }
}
