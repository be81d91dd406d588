//! Who asks: a user by token (or, switched on, by wallet), a backend by key.

use std::net::IpAddr;

use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, USER_AGENT};

use super::Services;
use super::errors::ApiError;
use super::request::Call;
use crate::auth::wallet::Wallet;
use crate::auth::{Identity, Refusal};
use crate::event_log::{Data, Kind};
use crate::patience::{ANSWER_TIMEOUT, within};

/// The credentials of `Authorization: Bearer` (RFC 6750 section 2.1). Another scheme counts as no token, and so does none.
pub fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(AUTHORIZATION)?.as_bytes().trim_ascii();
    let (scheme, rest) = value.split_at_checked("Bearer".len())?;
    let separated = rest.first().is_none_or(u8::is_ascii_whitespace);
    let credentials = rest.trim_ascii();
    (scheme.eq_ignore_ascii_case(b"Bearer") && separated && !credentials.is_empty())
        .then_some(credentials)
}

/// The key of a backend, if the request shows one that is right.
pub fn is_backend(services: &Services, headers: &HeaderMap) -> bool {
    presented_key(headers).is_some_and(|key| services.authority().is_api_key(key))
}

/// Refuses everybody but backends and the operator.
pub fn require_backend(services: &Services, call: &Call) -> Result<(), ApiError> {
    if call.operator || is_backend(services, &call.headers) {
        return Ok(());
    }
    if presented_key(&call.headers).is_none() {
        note_failure(services, call.whence(), "no_api_key");
        return Err(ApiError::unauthorized(
            "api_key_required",
            "API key required",
        ));
    }
    note_failure(services, call.whence(), "api_key");
    Err(ApiError::unauthorized("invalid_api_key", "Invalid API key"))
}

/// Verifies the request's bearer token, now.
pub fn require_token(services: &Services, call: &Call) -> Result<Identity, ApiError> {
    let presented = bearer(&call.headers).ok_or(Refusal::Missing);
    verify(services, call.whence(), presented)
}

/// The user whose notifications are meant: by token; then, if `auth.legacy_wallet_identity` says
/// so, by `x-user-wallet`; then by `?wallet=`.
pub async fn require_user(services: &Services, call: &Call) -> Result<String, ApiError> {
    let legacy = services.config().auth.legacy_wallet_identity;
    let address = match Claim::of(&call.headers, call.query("wallet"), legacy) {
        Claim::Token(token) => {
            let identity = verify(services, call.whence(), Ok(token))?;
            return Ok(identity.user_id.to_string());
        }
        Claim::Wallet(address) => address,
        Claim::Nobody => {
            note_failure(services, call.whence(), Refusal::Missing.check());
            return Err(ApiError::unauthorized(
                "authentication_required",
                "Authentication required",
            ));
        }
    };
    let wallet = Wallet::parse(&address).ok_or_else(invalid_wallet)?;
    let address = wallet.to_string();
    // Nobody has proven anything here, so no user is made either.
    within(ANSWER_TIMEOUT, services.store.user_by_wallet(&address))
        .await?
        .map(|user| user.id)
        .ok_or_else(user_not_found)
}

/// 400 for what is no address.
pub fn invalid_wallet() -> ApiError {
    ApiError::bad_request("invalid_wallet", "Invalid wallet address")
}

/// 404 for a wallet that nobody has.
pub fn user_not_found() -> ApiError {
    ApiError::not_found("user_not_found", "User not found")
}

/// Of a user agent; a token is longer.
const WORD_BYTES_MAX: usize = 48;

/// Where a request comes from, for the event log.
#[derive(Debug, Clone, Copy)]
pub struct Whence<'a> {
    /// The client's address, past trusted proxies.
    pub ip: IpAddr,
    /// What it says that it is.
    pub user_agent: Option<&'a str>,
}

impl<'a> Whence<'a> {
    /// Of a request with these headers.
    pub fn of(ip: IpAddr, headers: &'a HeaderMap) -> Self {
        // A word as long as this is no name of a program. Whatever it is, it is not for a log.
        let is_name = |name: &&str| name.split(' ').all(|word| word.len() <= WORD_BYTES_MAX);
        let user_agent = headers.get(USER_AGENT).and_then(|name| name.to_str().ok());
        let user_agent = user_agent.filter(is_name);
        Self { ip, user_agent }
    }
}

/// Counts and logs a refusal; `check` is a word of a small set.
pub fn note_failure(services: &Services, whence: Whence<'_>, check: &'static str) {
    services.counters.auth_failures.increment(check);
    services.event_log.record(
        Kind::AuthFailure,
        &Data {
            ip: Some(whence.ip),
            user_agent: whence.user_agent,
            reason: Some(check),
            ..Data::default()
        },
    );
}

fn verify(
    services: &Services,
    whence: Whence<'_>,
    presented: Result<&[u8], Refusal>,
) -> Result<Identity, ApiError> {
    presented
        .and_then(|token| std::str::from_utf8(token).map_err(|_| Refusal::Invalid("malformed")))
        .and_then(|token| services.identify(token))
        .map_err(|refusal| {
            note_failure(services, whence, refusal.check());
            refusal.into()
        })
}

/// `X-API-Key`, else the bearer's credentials. Never the URL.
fn presented_key(headers: &HeaderMap) -> Option<&[u8]> {
    headers
        .get("x-api-key")
        .map(|key| key.as_bytes())
        .filter(|key| !key.is_empty())
        .or_else(|| bearer(headers))
}

/// Who a request says it is, in the order of contract section 3.
#[derive(Debug, PartialEq, Eq)]
enum Claim<'a> {
    Token(&'a [u8]),
    Wallet(String),
    Nobody,
}

impl<'a> Claim<'a> {
    fn of(headers: &'a HeaderMap, wallet: Option<String>, legacy: bool) -> Self {
        if let Some(token) = bearer(headers) {
            return Self::Token(token);
        }
        let header = headers.get("x-user-wallet");
        let named = header
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
            .filter(|address| !address.is_empty())
            .or(wallet.filter(|address| !address.is_empty()));
        match named {
            Some(address) if legacy => Self::Wallet(address),
            _ => Self::Nobody,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, value.parse().unwrap());
        }
        map
    }

    #[test]
    fn only_the_bearer_scheme_brings_a_token() {
        let token = |value: &str| {
            let headers = headers(&[("authorization", value)]);
            bearer(&headers).map(|token| String::from_utf8_lossy(token).into_owned())
        };
        assert_eq!(token("Bearer a.b.c").as_deref(), Some("a.b.c"));
        assert_eq!(token("bearer   a.b.c ").as_deref(), Some("a.b.c"));
        assert_eq!(token("BEARER a").as_deref(), Some("a"));
        for none in [
            "Basic dTpw",
            "Bearer",
            "Bearer ",
            "Bearera.b.c",
            "a.b.c",
            "",
        ] {
            assert_eq!(token(none), None, "{none:?}");
        }
    }

    #[test]
    fn a_token_comes_first_and_wallets_count_only_where_switched_on() {
        let all = headers(&[("authorization", "Bearer t"), ("x-user-wallet", "h")]);
        let query = || Some("q".to_owned());
        // Also a bad token: whether it verifies is asked later, and there is no way back.
        assert_eq!(Claim::of(&all, query(), true), Claim::Token(b"t"));
        let header = headers(&[("x-user-wallet", "h")]);
        assert_eq!(Claim::of(&header, query(), true), Claim::Wallet("h".into()));
        assert_eq!(Claim::of(&header, query(), false), Claim::Nobody);
        let none = headers(&[("x-user-wallet", ""), ("authorization", "Basic x")]);
        assert_eq!(Claim::of(&none, query(), true), Claim::Wallet("q".into()));
        assert_eq!(Claim::of(&none, query(), false), Claim::Nobody);
        assert_eq!(Claim::of(&none, Some(String::new()), true), Claim::Nobody);
    }

    #[test]
    fn a_key_comes_in_either_header() {
        let own = headers(&[("x-api-key", "k"), ("authorization", "Bearer t")]);
        assert_eq!(presented_key(&own), Some(&b"k"[..]));
        let bearer = headers(&[("authorization", "Bearer k")]);
        assert_eq!(presented_key(&bearer), Some(&b"k"[..]));
        assert_eq!(presented_key(&HeaderMap::new()), None);
    }
}
