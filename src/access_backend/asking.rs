//! One question over HTTP: how it is put, signed and sent, and what counts as an answer.

use std::io;

use aws_lc_rs::hmac;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{CONTENT_TYPE, USER_AGENT};
use hyper::{Method, Request, StatusCode, Uri};
use serde::{Deserialize, Serialize};

use super::{AT_ONCE, Question};
use crate::config;
use crate::outgoing::{self, Outgoing, SIGNATURE, chain};

/// An answer is a few words.
const ANSWER_BYTES_MAX: usize = 16 << 10;

/// What the application has said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) allow: bool,
    /// For how long it may be remembered, if it has said so.
    pub(super) ttl_seconds: Option<u64>,
}

/// The way to the application.
pub(super) struct Asking {
    uri: Uri,
    key: hmac::Key,
    client: Outgoing,
}

impl Asking {
    /// # Errors
    /// When the URL is none, or is `https` and this machine has no certificates to check it with.
    pub(super) fn new(config: &config::AccessBackend) -> io::Result<Self> {
        let uri: Uri = config
            .url
            .parse()
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let client = Outgoing::new(&uri, config.authorities.as_deref(), config.timeout, AT_ONCE)?;
        Ok(Self {
            uri,
            key: hmac::Key::new(hmac::HMAC_SHA256, config.secret.expose()),
            client,
        })
    }

    /// Where it asks, without what may be nobody's business.
    pub(super) fn host(&self) -> &str {
        self.uri.host().unwrap_or_default()
    }

    /// Asks; an error says why that is no answer. Takes as long as the application does.
    pub(super) async fn ask(
        &self,
        question: &Question,
        connection_id: &str,
        unix_seconds: u64,
    ) -> Result<Said, String> {
        let body = body(question, connection_id);
        let request = Request::builder()
            .method(Method::POST)
            .uri(self.uri.clone())
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, outgoing::USER_AGENT)
            .header(
                SIGNATURE,
                outgoing::signature(&self.key, unix_seconds, &body),
            )
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| error.to_string())?;
        let response = self
            .client
            .send(request)
            .await
            .map_err(|error| chain(&error))?;
        let status = response.status();
        if status != StatusCode::OK {
            return said_by(status);
        }
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX);
        let body = body.collect().await.map_err(|error| error.to_string())?;
        parse(&body.to_bytes())
    }
}

/// The question as JSON.
fn body(question: &Question, connection_id: &str) -> String {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Asked<'a> {
        user_id: &'a str,
        wallet: Option<&'a str>,
        channel: Named<'a>,
        channel_key: &'a str,
        action: &'static str,
        connection_id: &'a str,
    }
    #[derive(Serialize)]
    struct Named<'a> {
        r#type: &'a str,
        id: &'a str,
    }
    let asked = Asked {
        user_id: &question.user_id,
        wallet: question.wallet.as_deref(),
        channel: Named {
            r#type: question.channel.kind(),
            id: question.channel.id(),
        },
        channel_key: question.channel.as_str(),
        action: question.action.as_str(),
        connection_id,
    };
    serde_json::to_string(&asked).expect("strings always serialize")
}

/// 403 and 404 are a plain no. Everything else is an application that is not well, or another one.
fn said_by(status: StatusCode) -> Result<Said, String> {
    match status {
        StatusCode::FORBIDDEN | StatusCode::NOT_FOUND => Ok(Said {
            allow: false,
            ttl_seconds: None,
        }),
        _ => Err(format!("status {}", status.as_u16())),
    }
}

fn parse(body: &[u8]) -> Result<Said, String> {
    #[derive(Deserialize)]
    struct Answer {
        allow: bool,
        ttl: Option<u64>,
    }
    // serde would also read a struct from an array.
    if !body.trim_ascii_start().starts_with(b"{") {
        return Err("the answer is no JSON object".into());
    }
    let answer: Answer = serde_json::from_slice(body)
        .map_err(|error| format!("the answer is not {{\"allow\":BOOL}}: {error}"))?;
    Ok(Said {
        allow: answer.allow,
        ttl_seconds: answer.ttl,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::ChannelKey;
    use crate::session::access::Action;

    #[test]
    fn a_question_is_signed_as_documented() {
        let question = Question {
            user_id: "u\"1".into(),
            wallet: None,
            channel: ChannelKey::parse("room_a_b", 255).unwrap(),
            action: Action::Publish,
        };
        let body = body(&question, "n-7");
        assert_eq!(
            body,
            r#"{"userId":"u\"1","wallet":null,"channel":{"type":"room","id":"a_b"},"channelKey":"room_a_b","action":"publish","connectionId":"n-7"}"#
        );
        // printf '1795406706.{"a":1}' | openssl dgst -sha256 -hmac 0123456789abcdef0123456789abcdef
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"0123456789abcdef0123456789abcdef");
        assert_eq!(
            outgoing::signature(&key, 1_795_406_706, r#"{"a":1}"#),
            "t=1795406706,v1=0ee5ef986aaa6295541c24d92ecfdc43021cc73d392dc60750de66e5e5ce46c0"
        );
    }

    #[test]
    fn only_an_object_that_says_so_allows() {
        let allow = |text: &str| parse(text.as_bytes()).map(|said| (said.allow, said.ttl_seconds));
        assert_eq!(allow(r#" {"allow":true}"#), Ok((true, None)));
        assert_eq!(
            allow(r#"{"allow":true,"ttl":7,"x":[]}"#),
            Ok((true, Some(7)))
        );
        assert_eq!(allow(r#"{"allow":false}"#), Ok((false, None)));
        for garbage in [
            "",
            "true",
            "[true,7]",
            "{}",
            r#"{"allow":1}"#,
            r#"{"allow":"true"}"#,
            r#"{"allow":null}"#,
            r#"{"allow":true,"ttl":-1}"#,
            r#"{"allow":true}x"#,
            "<html>",
        ] {
            assert!(allow(garbage).is_err(), "{garbage}");
        }
        let no = said_by(StatusCode::FORBIDDEN).unwrap();
        assert!(!no.allow);
        for status in [
            StatusCode::UNAUTHORIZED,
            StatusCode::FOUND,
            StatusCode::BAD_GATEWAY,
        ] {
            assert!(said_by(status).is_err(), "{status}");
        }
    }
}
