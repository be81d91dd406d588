//! The second pass for what tokens are signed and verified with: the keys beside `auth.secret`, and
//! the issuers whose tokens are believed, too.

use std::time::Duration;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::mistake::Fault;
use super::raw::Value;
use super::reader::Reader;
use super::{Issuer, NamedKey, Secret, TokenTtl, TtlVariant, urls, values};
use crate::clock::in_one_unit;
use crate::key_pair::Algorithm;

/// Tokens without a `kid` are tried with every key of their algorithm.
const KEYS_MAX: usize = 8;
const ISSUERS_MAX: usize = 16;

const SECOND: Duration = Duration::from_secs(1);
const TOKEN_TTL_MAX: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Each is a label of metrics.
const VARIANTS_MAX: usize = 8;
const WEIGHT_MAX: u32 = 1_000;

const ALGORITHMS: [(&str, Algorithm); 3] = [
    ("RS256", Algorithm::RS256),
    ("ES256", Algorithm::ES256),
    ("EdDSA", Algorithm::EdDSA),
];

/// `auth.previous_secret` with `auth.previous_until`; `Some(None)`: there is none.
pub(super) fn previous_secret(reader: &mut Reader) -> Option<Option<(Secret, u64)>> {
    let secret = reader.secret("auth.previous_secret");
    let until = reader.read("auth.previous_until", date);
    match (secret?, until?) {
        (None, _) => Some(None),
        (Some(secret), Some(until)) => Some(Some((secret, until))),
        (Some(_), None) => {
            let problem = "is empty, and auth.previous_secret would be believed for ever";
            let accepted = "when the last token that it signed ends: now and auth.token_ttl, such as \
                            \"2026-12-24T00:00:00Z\"";
            reader.reject("auth.previous_until", Fault::new(problem, accepted));
            None
        }
    }
}

/// `auth.keys.*` and `auth.signing_key`.
pub(super) fn keys(reader: &mut Reader) -> (Option<Vec<NamedKey>>, Option<Option<String>>) {
    let kids = reader.layers.names("auth.keys.");
    if let Some(kid) = kids.get(KEYS_MAX) {
        let fault = Fault::new("is one key too many", format!("{KEYS_MAX} at most"));
        reader.reject(&format!("auth.keys.{kid}.pem_file"), fault);
    }
    let keys: Vec<Option<NamedKey>> = kids.iter().map(|kid| key(reader, kid)).collect();
    let keys: Option<Vec<NamedKey>> = keys.into_iter().collect();
    let signing = reader.read("auth.signing_key", values::text);
    let signing = signing.and_then(|signing| match (signing.as_str(), &keys) {
        ("", _) => Some(None),
        // What is wrong with a key is said already.
        (_, None) => None,
        (kid, Some(keys)) => {
            let Some(key) = keys.iter().find(|key| key.kid == kid) else {
                let accepted = "the KID of a table [auth.keys.KID]";
                reader.reject("auth.signing_key", Fault::new("names no key", accepted));
                return None;
            };
            if key.pair.private.is_none() {
                let accepted = "a key whose PEM is a private one";
                let fault = Fault::new("names a public key, which signs nothing", accepted);
                reader.reject("auth.signing_key", fault);
                return None;
            }
            if key.until_unix_ms.is_some() {
                let accepted = "a key without `until`";
                let fault = Fault::new("names a key that is to end", accepted);
                reader.reject("auth.signing_key", fault);
                return None;
            }
            Some(Some(signing))
        }
    });
    (keys, signing)
}

fn key(reader: &mut Reader, kid: &str) -> Option<NamedKey> {
    let pem = format!("auth.keys.{kid}.pem");
    let pair = reader.pem(&pem);
    let until = reader.read(&format!("auth.keys.{kid}.until"), date);
    let (pair, until_unix_ms) = (pair?, until?);
    let Some(pair) = pair else {
        let fault = Fault::new("there is no key", format!("{pem}_file or {pem}"));
        reader.reject(&pem, fault);
        return None;
    };
    Some(NamedKey {
        kid: kid.to_owned(),
        pair,
        until_unix_ms,
    })
}

/// `auth.issuers.*`; whoever names no audience has that of `auth.audience`.
pub(super) fn issuers(
    reader: &mut Reader,
    audience: Option<&str>,
    authorities: Option<&[u8]>,
) -> Option<Vec<Issuer>> {
    let names = reader.layers.names("auth.issuers.");
    if let Some(name) = names.get(ISSUERS_MAX) {
        let fault = Fault::new("is one issuer too many", format!("{ISSUERS_MAX} at most"));
        reader.reject(&format!("auth.issuers.{name}.issuer"), fault);
    }
    let issuers: Vec<Option<Issuer>> = names
        .iter()
        .map(|name| issuer(reader, name, audience, authorities))
        .collect();
    let issuers: Vec<Issuer> = issuers.into_iter().collect::<Option<_>>()?;
    for (at, issuer) in issuers.iter().enumerate() {
        if issuers[..at].iter().any(|one| one.issuer == issuer.issuer) {
            let key = format!("auth.issuers.{}.issuer", issuer.name);
            let fault = Fault::new("has a table already", "each issuer once");
            reader.reject(&key, fault);
        }
    }
    Some(issuers)
}

fn issuer(
    reader: &mut Reader,
    name: &str,
    audience: Option<&str>,
    authorities: Option<&[u8]>,
) -> Option<Issuer> {
    let key = |field| format!("auth.issuers.{name}.{field}");
    let issuer = reader.read(&key("issuer"), values::name);
    let own_audience = reader.read(&key("audience"), values::text);
    let jwks_url = reader.read(&key("jwks_url"), urls::published_keys);
    let algorithms = reader.read(&key("algorithms"), algorithms);
    let own_audience = own_audience?;
    Some(Issuer {
        name: name.to_owned(),
        issuer: issuer?,
        audience: if own_audience.is_empty() {
            audience?.to_owned()
        } else {
            own_audience
        },
        jwks_url: jwks_url?,
        algorithms: algorithms?,
        authorities: authorities.map(<[u8]>::to_vec),
    })
}

fn algorithms(value: &Value) -> Result<Vec<Algorithm>, Fault> {
    let one = |text: &str| values::word(&ALGORITHMS)(&Value::Text(text.to_owned()));
    let algorithms = values::list(one)(value)?;
    if algorithms.is_empty() {
        let accepted = "some of \"RS256\", \"ES256\", \"EdDSA\"";
        return Err(Fault::new("has no algorithm", accepted));
    }
    Ok(algorithms)
}

/// `"30m"`, or `["30m:9", "5m:1"]`: nine tenths of the users and one tenth.
pub(super) fn token_ttl(value: &Value) -> Result<TokenTtl, Fault> {
    let duration = values::duration(SECOND, TOKEN_TTL_MAX);
    if matches!(value, Value::Text(text) if !text.contains([',', ':'])) {
        return duration(value).map(TokenTtl::One);
    }
    let fault = |problem: String| {
        let accepted = format!(
            "a duration, such as \"30m\", or 1 to {VARIANTS_MAX} different ones with their weights from 1 to \
             {WEIGHT_MAX}, such as [\"30m:9\", \"5m:1\"]"
        );
        Fault::new(problem, accepted)
    };
    if !matches!(value, Value::Text(_) | Value::List(_)) {
        return duration(value).map(TokenTtl::One);
    }
    let variants = values::list(|item| {
        let (ttl, weight) = item.split_once(':').unwrap_or((item, "1"));
        let weight: Option<u32> = weight.trim().parse().ok();
        let weight = weight.filter(|weight| (1..=WEIGHT_MAX).contains(weight));
        let weight = weight.ok_or_else(|| fault(format!("{item:?} has another weight")))?;
        let ttl = duration(&Value::Text(ttl.to_owned()))?;
        let name = in_one_unit(ttl);
        Ok(TtlVariant { name, ttl, weight })
    })(value)?;
    let twice = |at: usize| variants[..at].iter().any(|one| one.ttl == variants[at].ttl);
    match variants.as_slice() {
        [only] => Ok(TokenTtl::One(only.ttl)),
        [] => Err(fault("has no duration".into())),
        _ if variants.len() > VARIANTS_MAX => Err(fault("has too many".into())),
        _ if (0..variants.len()).any(twice) => Err(fault("has one twice".into())),
        _ => Ok(TokenTtl::Variants(variants)),
    }
}

/// A moment (RFC 3339) in milliseconds since 1970, or nothing.
fn date(value: &Value) -> Result<Option<u64>, Fault> {
    let fault = || {
        let accepted = "a date with its time and zone in quotes, such as \"2026-12-24T00:00:00Z\"";
        Fault::new("is not such a date", accepted)
    };
    let text = values::text(value).map_err(|_| fault())?;
    if text.is_empty() {
        return Ok(None);
    }
    let date = OffsetDateTime::parse(&text, &Rfc3339).map_err(|_| fault())?;
    let unix_ms = date.unix_timestamp_nanos() / 1_000_000;
    u64::try_from(unix_ms).map(Some).map_err(|_| fault())
}
