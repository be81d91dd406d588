//! `POST /control/follow?channel=KEY`: how `fanfare subscribe` gets in, without the server's secret.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hyper::Response;
use serde_json::json;
use url::form_urlencoded;

use super::{Body, Parts, whole};
use crate::auth::TokenSubject;
use crate::config::Access;
use crate::event_log::{Data, Kind};
use crate::http::errors::ApiError;
use crate::http::{Services, reply};
use crate::protocol::ChannelKey;

/// Whose token it is where a channel has no owner.
const USER: &str = "fanfare-subscribe";

/// `{"channel":"post_42","token":"..","certificate":null}`: a token for this channel, and the
/// certificate that the listener shows (DER in base64), if it speaks TLS.
pub(super) fn follow(parts: &Parts, query: Option<&str>) -> Result<Response<Body>, ApiError> {
    let services = &parts.services;
    let config = services.config();
    let channel = form_urlencoded::parse(query.unwrap_or_default().as_bytes())
        .find(|(name, _)| name == "channel")
        .and_then(|(_, key)| ChannelKey::parse(&key, config.limits.channel_key_bytes).ok())
        .ok_or_else(|| refused("That is no channel's key".to_owned()))?;
    let subject = TokenSubject {
        user_id: user(services, &channel)?,
        channels: vec![channel.to_string()],
        ..TokenSubject::default()
    };
    let authority = services.authority();
    let issued = authority.issue(&subject, services.clock.unix_ms());
    services.counters.tokens_issued.increment();
    services.event_log.record(
        Kind::TokenIssued,
        &Data {
            user_id: Some(&subject.user_id),
            channel: Some(channel.as_str()),
            id: Some(&issued.jti),
            reason: Some("control_socket"),
            ..Data::default()
        },
    );
    let certificate = services.tls.end_entity();
    Ok(whole(reply::ok(&json!({
        "channel": channel.as_str(),
        "token": issued.token,
        "certificate": certificate.map(|der| BASE64_STANDARD.encode(der)),
    }))))
}

/// Who may follow it.
fn user(services: &Services, channel: &ChannelKey) -> Result<String, ApiError> {
    let config = services.config();
    let kind = channel.kind();
    match config.channels.rule(kind).map(|rule| rule.subscribe) {
        Some(Access::Own) => Ok(channel.id().to_owned()),
        Some(Access::Any | Access::Token | Access::Backend) => Ok(USER.to_owned()),
        Some(Access::None) => Err(refused(format!("channels.{kind}.subscribe lets nobody in"))),
        None => Err(refused(format!(
            "{kind:?} is no type of channel that is configured"
        ))),
    }
}

fn refused(text: String) -> ApiError {
    ApiError::bad_request("invalid_channel", text)
}
