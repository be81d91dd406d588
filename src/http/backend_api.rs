//! What backends may do: publish, broadcast, tell us of users. Contract section 5.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use super::Services;
use super::errors::ApiError;
use super::identity::{invalid_wallet, require_backend};
use super::notifications::invalid_user_id;
use super::reply::{self, Reply};
use super::request::{Call, id_text, scoped_key};
use crate::auth::wallet::Wallet;
use crate::broker::{self, Publication, Published, User, UserChange, traced};
use crate::config::{ChannelRules, Config};
use crate::patience::{ANSWER_TIMEOUT, AT_ONCE, together, within};
use crate::protocol::{ChannelKey, Event};

/// Channels that one broadcast may name.
const MAX_CHANNELS: usize = 1_000;

/// A user's nickname.
const MAX_NICKNAME_BYTES: usize = 255;

/// `POST /api/publish`
pub async fn publish(services: &Services, call: &Call) -> Result<Reply, ApiError> {
    require_backend(services, call)?;
    let body: PublishBody<'_> = call.json()?;
    let config = &*services.config();
    let channel = addressee(&body.channel.unwrap_or_default(), config)?;
    let event = event(body.event, config)?;
    let key = call.idempotency_key()?;
    let publication = publication("publish", &channel, event, key, &config.channels);
    let published = send(services, call, publication).await?;
    let answer = reply::ok(&PublishedView::of(true, &channel, &published));
    Ok(reply::replayed(answer, published.repeated))
}

/// `POST /api/broadcast`
pub async fn broadcast(services: &Services, call: &Call) -> Result<Reply, ApiError> {
    require_backend(services, call)?;
    let body: BroadcastBody<'_> = call.json()?;
    let config = &*services.config();
    let channels = addressees(body.channels, config)?;
    let event = event(body.event, config)?;
    let key = call.idempotency_key()?;
    let mut published = Vec::with_capacity(channels.len());
    for channels in channels.chunks(AT_ONCE) {
        let sends = channels.iter().map(|channel| {
            let event = event.clone();
            send(
                services,
                call,
                publication("broadcast", channel, event, key, &config.channels),
            )
        });
        for outcome in together(sends).await {
            published.push(outcome?);
        }
    }
    #[derive(Serialize)]
    struct Broadcasted<'a> {
        success: bool,
        results: Vec<PublishedView<'a>>,
    }
    let results = channels.iter().zip(&published);
    Ok(reply::ok(&Broadcasted {
        success: true,
        results: results
            .map(|(channel, published)| PublishedView::of(false, channel, published))
            .collect(),
    }))
}

/// `PUT /api/users`
pub async fn put_user(services: &Services, call: &Call) -> Result<Reply, ApiError> {
    require_backend(services, call)?;
    let key_bytes = services.config().limits.channel_key_bytes;
    let (id, change) = call.json::<UserBody>()?.check(key_bytes)?;
    let user = within(ANSWER_TIMEOUT, services.store.put_user(&id, change)).await?;
    #[derive(Serialize)]
    struct Put {
        success: bool,
        user: UserView,
    }
    Ok(reply::ok(&Put {
        success: true,
        user: UserView::of(user),
    }))
}

async fn send(
    services: &Services,
    call: &Call,
    publication: Publication,
) -> Result<Published, broker::Error> {
    let (broker, tracer) = (&*services.broker, &services.tracer);
    let published = traced::publish(broker, tracer, call.trace, publication);
    let published = within(ANSWER_TIMEOUT, published).await?;
    if !published.repeated {
        services.counters.publications.increment("backend");
    }
    Ok(published)
}

fn publication(
    route: &str,
    channel: &ChannelKey,
    event: Event,
    key: Option<&str>,
    rules: &ChannelRules,
) -> Publication {
    Publication {
        channel: channel.clone(),
        event,
        retention: rules.rule(channel.kind()).and_then(|rule| rule.history),
        idempotency_key: key.map(|key| scoped_key(route, channel.as_str(), key)),
        trace: None,
    }
}

/// The channel that a backend names: any of a configured type.
pub fn addressee(named: &Value, config: &Config) -> Result<ChannelKey, ApiError> {
    let channel = ChannelKey::resolve(named, None, config.limits.channel_key_bytes)?;
    if config.channels.rule(channel.kind()).is_some() {
        return Ok(channel);
    }
    let known: Vec<&str> = config.channels.0.keys().map(String::as_str).collect();
    Err(ApiError::bad_request(
        "invalid_channel",
        format!(
            "channel type \"{}\" is not configured; there are: {}",
            channel.kind(),
            known.join(", ")
        ),
    ))
}

/// All of them are good, or nothing is published. One that is named twice is meant once.
fn addressees(named: Option<Value>, config: &Config) -> Result<Vec<ChannelKey>, ApiError> {
    let Some(Value::Array(named)) = named else {
        return Err(ApiError::bad_request(
            "missing_fields",
            "channels must be a list",
        ));
    };
    if named.is_empty() || named.len() > MAX_CHANNELS {
        let code = if named.is_empty() {
            "missing_fields"
        } else {
            "too_many_channels"
        };
        let error = format!("channels must have 1 to {MAX_CHANNELS} entries");
        return Err(ApiError::bad_request(code, error));
    }
    let mut channels = Vec::with_capacity(named.len());
    let mut seen = std::collections::HashSet::new();
    for one in &named {
        let channel = addressee(one, config)?;
        if seen.insert(channel.clone()) {
            channels.push(channel);
        }
    }
    Ok(channels)
}

fn event(raw: Option<&RawValue>, config: &Config) -> Result<Event, ApiError> {
    let max_bytes = config.limits.event_bytes;
    Event::parse(raw.map_or("null", RawValue::get), max_bytes)
        .map_err(|error| ApiError::event(error, max_bytes))
}

#[derive(Deserialize)]
struct PublishBody<'a> {
    channel: Option<Value>,
    #[serde(borrow)]
    event: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct BroadcastBody<'a> {
    channels: Option<Value>,
    #[serde(borrow)]
    event: Option<&'a RawValue>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PublishedView<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    success: Option<bool>,
    channel_key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    epoch: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
}

impl<'a> PublishedView<'a> {
    fn of(alone: bool, channel: &'a ChannelKey, published: &'a Published) -> Self {
        let position = published.position.as_ref();
        Self {
            success: alone.then_some(true),
            channel_key: channel.as_str(),
            epoch: position.map(|position| position.epoch.as_str()),
            offset: position.map(|position| position.offset),
        }
    }
}

#[derive(Deserialize)]
struct UserBody {
    id: Option<Value>,
    wallet: Option<Value>,
    nickname: Option<Value>,
}

impl UserBody {
    fn check(self, key_bytes: usize) -> Result<(String, UserChange), ApiError> {
        let id = id_text(self.id)
            .ok_or_else(|| ApiError::bad_request("missing_fields", "id is required"))?;
        if ChannelKey::build("notifications", &id, key_bytes).is_err() {
            return Err(invalid_user_id());
        }
        let wallet = match self.wallet {
            None => None,
            Some(member) => {
                let wallet = member.as_str().and_then(Wallet::parse);
                Some(wallet.ok_or_else(invalid_wallet)?.to_string())
            }
        };
        let nickname = match self.nickname {
            None => None,
            Some(Value::String(name))
                if name.len() <= MAX_NICKNAME_BYTES && !name.chars().any(char::is_control) =>
            {
                Some(name)
            }
            Some(_) => {
                return Err(ApiError::bad_request(
                    "invalid_nickname",
                    format!("nickname must be a string of {MAX_NICKNAME_BYTES} bytes at most"),
                ));
            }
        };
        Ok((id, UserChange { wallet, nickname }))
    }
}

#[derive(Serialize)]
struct UserView {
    id: String,
    wallet: Option<String>,
    nickname: Option<String>,
}

impl UserView {
    fn of(user: User) -> Self {
        Self {
            id: user.id,
            wallet: user.wallet,
            nickname: user.nickname,
        }
    }
}

#[cfg(test)]
mod tests;
