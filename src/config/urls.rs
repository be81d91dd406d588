//! The second pass for what looks like a URL: the public one, origins, Redis.

use std::borrow::Cow;

use url::{Host, Url};

use super::AllowedOrigins;
use super::mistake::Fault;
use super::raw::Value;
use super::values;

const ANY: &str = "*";

/// The URL that browsers use, without a trailing slash, or nothing.
pub(super) fn public(value: &Value) -> Result<String, Fault> {
    let text = values::text(value)?;
    if text.is_empty() {
        return Ok(text);
    }
    let fault = |problem| {
        Fault::new(
            problem,
            "scheme, host and maybe a port, such as \"https://rt.example.com\"",
        )
    };
    let url = Url::parse(&text).map_err(|_| fault("is not a URL"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(fault("is neither http:// nor https://"));
    }
    if !is_bare(&url) {
        return Err(fault("has more than scheme, host and port")
            .suggesting(Some(format!("{:?}", url.origin().ascii_serialization()))));
    }
    Ok(url.origin().ascii_serialization())
}

/// Where the rule `backend` asks, or nothing. Credentials in it would be shown with it.
pub(super) fn callback(value: &Value) -> Result<String, Fault> {
    let text = values::text(value)?;
    if text.is_empty() {
        return Ok(text);
    }
    let fault = |problem| {
        Fault::new(
            problem,
            "an http:// or https:// URL, such as \"http://127.0.0.1:3000/api/fanfare/access\"",
        )
    };
    let url = Url::parse(&text).map_err(|_| fault("is not a URL"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(fault("is neither http:// nor https://"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(fault(
            "has a user or a password, which would be shown with it",
        ));
    }
    if url.fragment().is_some() {
        return Err(fault("has a fragment, which is never sent"));
    }
    Ok(url.into())
}

/// Where an issuer's keys are. Whoever could change them on the way could sign for everybody.
pub(super) fn published_keys(value: &Value) -> Result<String, Fault> {
    let accepted = "an https:// URL, such as \"https://issuer.example.com/.well-known/jwks.json\", or \
                    http:// on this machine";
    let url = callback(value).map_err(|fault| Fault::new(fault.problem, accepted))?;
    if url.is_empty() {
        return Err(Fault::new("is empty", accepted));
    }
    if is_exposed(&url) {
        let problem = "is http:// across a network: whoever is in between could sign tokens";
        return Err(Fault::new(problem, accepted));
    }
    Ok(url)
}

/// A text as it may be shown: without what stands where a URL has its user and password, well-formed or not.
pub(super) fn without_credentials(text: &str) -> Cow<'_, str> {
    let Some((before, rest)) = text.rsplit_once('@') else {
        return text.into();
    };
    match before.split_once("//") {
        Some((scheme, _)) => format!("{scheme}//***@{rest}").into(),
        // The slashes, or all of `https://`, were forgotten.
        None if before.contains(':') => format!("***@{rest}").into(),
        None => text.into(),
    }
}

/// Whether somebody between here and there could read and change what is said.
pub(super) fn is_exposed(url: &str) -> bool {
    let Ok(url) = Url::parse(url) else {
        return false;
    };
    let is_local = match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    url.scheme() == "http" && !is_local
}

/// Origins as browsers send them, or `*` alone.
pub(super) fn origins(value: &Value) -> Result<AllowedOrigins, Fault> {
    let list = values::list(|item| {
        if item == ANY {
            Ok(ANY.to_owned())
        } else {
            origin(item)
        }
    })(value)?;
    match list.as_slice() {
        [one] if one == ANY => Ok(AllowedOrigins::Any),
        items if items.iter().any(|item| item == ANY) => Err(Fault::new(
            "\"*\" allows all the others too",
            "[\"*\"] alone, or a list of origins",
        )),
        _ => Ok(AllowedOrigins::SameHostAnd(list)),
    }
}

/// `scheme://host[:port]`, lower case, without the scheme's own port (RFC 6454, section 6.2).
fn origin(text: &str) -> Result<String, Fault> {
    let fault = |problem: &str| {
        let text = without_credentials(text);
        let accepted = "a list of origins, such as [\"https://example.com\"], or [\"*\"]";
        Fault::new(format!("{text:?} {problem}"), accepted)
    };
    let Ok(url) = Url::parse(text) else {
        let with_scheme = format!("https://{text}");
        let meant = origin_of(&with_scheme).map(|origin| format!("{origin:?}"));
        return Err(fault("is not an origin").suggesting(meant));
    };
    let Some(host) = url.host_str().filter(|host| !host.is_empty()) else {
        let meant = origin_of(&format!("https://{text}")).map(|origin| format!("{origin:?}"));
        return Err(fault("has no host").suggesting(meant));
    };
    if host.contains('*') {
        return Err(fault(
            "has a wildcard: origins are compared whole, list each",
        ));
    }
    let origin = serialized(&url);
    if !is_bare(&url) || text.ends_with('/') {
        return Err(
            fault("has more than scheme, host and port").suggesting(Some(format!("{origin:?}")))
        );
    }
    Ok(origin)
}

fn origin_of(text: &str) -> Option<String> {
    let url = Url::parse(text).ok()?;
    is_bare(&url).then(|| serialized(&url))
}

/// Schemes that the URL standard does not know (`tauri:`, `capacitor:`) have no origin there, but
/// their programs send one.
fn serialized(url: &Url) -> String {
    let origin = url.origin();
    if origin.is_tuple() {
        return origin.ascii_serialization();
    }
    let host = url.host_str().unwrap_or_default().to_lowercase();
    match url.port() {
        Some(port) => format!("{}://{host}:{port}", url.scheme()),
        None => format!("{}://{host}", url.scheme()),
    }
}

fn is_bare(url: &Url) -> bool {
    matches!(url.path(), "" | "/")
        && url.query().is_none()
        && url.fragment().is_none()
        && url.username().is_empty()
        && url.password().is_none()
}

/// One Redis, or the nodes of a cluster, or sentinels. Never repeats the text: it may hold a password.
pub(super) fn redis(value: &Value) -> Result<String, Fault> {
    const SCHEMES: [&str; 4] = ["redis", "rediss", "redis+sentinel", "rediss+sentinel"];
    let accepted = "redis://HOST[:PORT], rediss://.. (TLS) or redis+sentinel://../MASTER; several nodes \
                    separated by commas";
    let fault = |problem| Fault::new(problem, accepted);
    let text = values::text(value).map_err(|_| fault("is not text"))?;
    let (scheme, rest) = text
        .split_once("://")
        .ok_or_else(|| fault("has no scheme"))?;
    if !SCHEMES.contains(&scheme) {
        return Err(fault("has another scheme"));
    }
    let has_sentinels = scheme.ends_with("+sentinel");
    let path = rest.split('?').next().and_then(|rest| rest.split_once('/'));
    if has_sentinels && path.is_none_or(|(_, path)| path.split('/').next() == Some("")) {
        return Err(fault("names no master: redis+sentinel://HOST/MASTER"));
    }
    for node in rest.split(',').map(str::trim) {
        let node = SCHEMES
            .iter()
            .find_map(|scheme| node.strip_prefix(scheme)?.strip_prefix("://"))
            .unwrap_or(node);
        // A scheme that the standard does not know leaves the host alone; its port is checked.
        let host = Url::parse(&format!("redis://{node}"))
            .map_err(|_| fault("has a node that is no HOST:PORT"))?;
        if host.host_str().is_none_or(str::is_empty) {
            return Err(fault("has a node without a host"));
        }
    }
    Ok(text)
}

/// What every Redis key starts with. Glob characters would let one server's pattern match another's keys; braces
/// say which slot of a cluster a key is in.
pub(super) fn redis_prefix(value: &Value) -> Result<String, Fault> {
    let text = values::text(value)?;
    let fits = (1..=64).contains(&text.len())
        && text
            .chars()
            .all(|char| char.is_ascii_graphic() && !"*?[]\\{}".contains(char));
    if fits {
        Ok(text)
    } else {
        let accepted = "1 to 64 visible ASCII characters, none of * ? [ ] { } \\";
        Err(Fault::new("is no prefix", accepted))
    }
}
