//! The second pass, value by value: text and numbers become durations, sizes, addresses.
//!
//! Each reader says what it accepts, so that a mistake can repeat it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use ipnet::IpNet;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::mistake::Fault;
use super::raw::Value;
use super::{sources, suggest};
use crate::clock::in_one_unit;

/// "Unlimited" for a time: long enough, and short enough to be added to any clock.
const UNLIMITED: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// `true` or `false`.
pub(super) fn boolean(value: &Value) -> Result<bool, Fault> {
    match value {
        Value::Boolean(value) => Ok(*value),
        Value::Text(text) if text == "true" => Ok(true),
        Value::Text(text) if text == "false" => Ok(false),
        _ => Err(Fault::new("is not a boolean", "true or false")),
    }
}

/// A whole number between `least` and `most`.
pub(super) fn count(least: u64, most: u64) -> impl Fn(&Value) -> Result<u64, Fault> {
    move |value| {
        let number = match value {
            Value::Integer(number) => u64::try_from(*number).ok(),
            Value::Text(text) => text.trim().parse().ok(),
            _ => None,
        };
        number
            .filter(|number| (least..=most).contains(number))
            .ok_or_else(|| {
                let accepted = format!("a whole number from {least} to {most}");
                Fault::new("is not such a number", accepted)
            })
    }
}

/// A count whose 0 is "unlimited".
pub(super) fn limit(value: &Value) -> Result<usize, Fault> {
    let number = count(0, u64::from(u32::MAX))(value)?;
    Ok(if number == 0 {
        usize::MAX
    } else {
        usize::try_from(number).unwrap_or(usize::MAX)
    })
}

/// A rate whose 0 is "unlimited".
pub(super) fn rate(value: &Value) -> Result<u32, Fault> {
    let number = count(0, u64::from(u32::MAX))(value)?;
    Ok(match u32::try_from(number) {
        Ok(number) if number > 0 => number,
        _ => u32::MAX,
    })
}

/// A size in bytes, whose 0 is "unlimited".
pub(super) fn size(value: &Value) -> Result<u64, Fault> {
    /// Past it the unit is a slip; the parser saturates.
    const MOST: u64 = 1 << 50;
    let bytes = match value {
        Value::Integer(number) => u64::try_from(*number).ok(),
        Value::Text(text) => text
            .trim()
            .parse()
            .map(|ByteSize(bytes)| bytes)
            .ok()
            // "0.1B" is rounded down to 0, and that would mean "unlimited".
            .filter(|bytes| *bytes > 0 || !text.contains(|char| matches!(char, '1'..='9'))),
        _ => None,
    };
    match bytes {
        Some(0) => Ok(u64::MAX),
        Some(bytes) if bytes <= MOST => Ok(bytes),
        _ => Err(Fault::new(
            "is not a size",
            "a size with a unit, such as \"64KiB\" or \"1GiB\", or a number of bytes, up to 1PiB; 0 is \
             unlimited",
        )),
    }
}

/// A size of something in memory.
pub(super) fn size_in_memory(value: &Value) -> Result<usize, Fault> {
    Ok(usize::try_from(size(value)?).unwrap_or(usize::MAX))
}

/// A duration between `least` and `most`.
pub(super) fn duration(
    least: Duration,
    most: Duration,
) -> impl Fn(&Value) -> Result<Duration, Fault> {
    move |value| {
        let accepted = || {
            let [least, most] = [least, most].map(in_one_unit);
            format!("a duration with a unit, such as \"30s\" or \"5m\", from {least} to {most}")
        };
        let text = match value {
            Value::Text(text) => text.trim(),
            Value::Integer(_) => return Err(Fault::new("has no unit", accepted())),
            _ => return Err(Fault::new("is not a duration", accepted())),
        };
        match humantime::parse_duration(text) {
            Ok(duration) if (least..=most).contains(&duration) => Ok(duration),
            Ok(_) => Err(Fault::new("is out of range", accepted())),
            Err(_) if text.parse::<f64>().is_ok() => Err(Fault::new("has no unit", accepted())),
            Err(_) => Err(Fault::new("is not a duration", accepted())),
        }
    }
}

/// The time that something may take, whose 0 is "unlimited".
pub(super) fn timeout(value: &Value) -> Result<Duration, Fault> {
    let hour = Duration::from_secs(60 * 60);
    let timeout = duration(Duration::ZERO, hour)(value)?;
    Ok(if timeout.is_zero() {
        UNLIMITED
    } else {
        timeout
    })
}

/// One of a few words.
pub(super) fn word<T: Copy>(words: &[(&str, T)]) -> impl Fn(&Value) -> Result<T, Fault> {
    move |value| {
        let text = match value {
            Value::Text(text) => text.as_str(),
            _ => "",
        };
        let found = words.iter().find(|(word, _)| *word == text);
        found.map(|(_, meaning)| *meaning).ok_or_else(|| {
            let quoted: Vec<String> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
            let near = suggest::word(text, words.iter().map(|(word, _)| *word));
            Fault::new("is none of the words", quoted.join(", "))
                .suggesting(near.map(|word| format!("{word:?}")))
        })
    }
}

/// Text, maybe empty.
pub(super) fn text(value: &Value) -> Result<String, Fault> {
    match value {
        Value::Text(text) => Ok(text.clone()),
        _ => Err(Fault::new("is not text", "text in quotes")),
    }
}

/// Text that says something.
pub(super) fn name(value: &Value) -> Result<String, Fault> {
    match text(value)? {
        text if text.trim().is_empty() => Err(Fault::new("is empty", "text in quotes")),
        text => Ok(text),
    }
}

/// A line that may stand in a sign-in message (EIP-4361): the characters of URLs and spaces.
pub(super) fn statement(value: &Value) -> Result<String, Fault> {
    const BYTES_MAX: usize = 256;
    let text = name(value)?;
    let known =
        |byte: u8| byte.is_ascii_alphanumeric() || b" -._~:/?#[]@!$&'()*+,;=".contains(&byte);
    if text.len() <= BYTES_MAX && text.bytes().all(known) {
        return Ok(text);
    }
    Err(Fault::new(
        "cannot stand in a sign-in message",
        "a line of at most 256 letters, digits, spaces and -._~:/?#[]@!$&'()*+,;=",
    ))
}

/// A file; empty: none.
pub(super) fn path(value: &Value) -> Result<Option<PathBuf>, Fault> {
    let path = text(value)?;
    Ok((!path.is_empty()).then(|| path.into()))
}

/// What diagnostics show: a level, and levels of modules.
pub(super) fn log_filter(value: &Value) -> Result<String, Fault> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let text = text(value)?;
    let is_module = |name: &str| {
        let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | ':' | '-');
        !name.is_empty() && name.chars().all(known)
    };
    let is_right = text.split(',').map(str::trim).all(|part| {
        let (module, level) = part.split_once('=').unwrap_or(("fanfare", part));
        is_module(module) && LEVELS.contains(&level)
    });
    if is_right {
        return Ok(text);
    }
    let accepted = "one of off, error, warn, info, debug and trace, or several parts with commas: \
                    \"info,fanfare=debug\"";
    Err(Fault::new("is no such filter", accepted))
}

/// The path of a folder.
pub(super) fn folder(value: &Value) -> Result<PathBuf, Fault> {
    name(value)
        .map(PathBuf::from)
        .map_err(|_| Fault::new("is no path", "the path of a folder"))
}

/// The path of a file, nothing, or the word "off".
pub(super) fn path_or_off(value: &Value) -> Result<Option<PathBuf>, Fault> {
    match value {
        Value::Text(path) if path == "off" => Ok(None),
        Value::Text(path) if !path.contains('\0') => Ok(Some(PathBuf::from(path))),
        _ => Err(Fault::new(
            "is no path",
            "the path of a file, \"\" or \"off\"",
        )),
    }
}

/// A list; text is taken apart at its commas, unless it is a list in brackets.
pub(super) fn list<T>(
    item: impl Fn(&str) -> Result<T, Fault>,
) -> impl Fn(&Value) -> Result<Vec<T>, Fault> {
    move |value| match value {
        // As a list is written in the file, which environments and flags may hold, too.
        Value::Text(text) if text.trim_start().starts_with('[') => {
            serde_json::from_str::<Vec<String>>(text)
                .map_err(|_| not_a_list())?
                .iter()
                .map(|text| item(text))
                .collect()
        }
        Value::Text(text) => text
            .split(',')
            .map(str::trim)
            .filter(|text| !text.is_empty())
            .map(&item)
            .collect(),
        Value::List(items) => items
            .iter()
            .map(|value| match value {
                Value::Text(text) => item(text),
                _ => Err(not_a_list()),
            })
            .collect(),
        _ => Err(not_a_list()),
    }
}

fn not_a_list() -> Fault {
    Fault::new("is not a list of text", "a list such as [\"a\", \"b\"]")
}

/// An IP address and a port; `localhost` is the IPv4 one.
pub(super) fn socket_address(value: &Value) -> Result<SocketAddr, Fault> {
    let text = text(value).unwrap_or_default();
    let localhost = || {
        let port = text.strip_prefix("localhost:")?.parse().ok()?;
        Some(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
    };
    text.parse().ok().or_else(localhost).ok_or_else(|| {
        let port = text.trim_start_matches(':').parse::<u16>().ok();
        let bare: Option<IpAddr> = text.trim_matches(['[', ']']).parse().ok();
        let accepted = "IP:PORT, such as \"127.0.0.1:3002\", \"0.0.0.0:3002\" or \"[::]:3002\"";
        let problem = match (port, bare) {
            (Some(_), _) => "has no IP address",
            (_, Some(_)) => "has no port",
            _ => "is not an address (names are not looked up)",
        };
        Fault::new(problem, accepted)
            .suggesting(port.map(|port| format!("\"127.0.0.1:{port}\" or \"0.0.0.0:{port}\"")))
    })
}

/// A network, or a single address as the network of itself.
pub(super) fn network(text: &str) -> Result<IpNet, Fault> {
    let address = || text.parse::<IpAddr>().ok().map(IpNet::from);
    text.parse().ok().or_else(address).ok_or_else(|| {
        let accepted = "networks and addresses, such as \"10.0.0.0/8\" or \"192.0.2.7\"";
        Fault::new(format!("{text:?} is not a network"), accepted)
    })
}

/// The content of a file with certificates of authorities, each of which can be used; empty: none.
pub(super) fn certificates(value: &Value) -> Result<Option<Vec<u8>>, Fault> {
    let path = text(value)?;
    if path.is_empty() {
        return Ok(None);
    }
    let accepted = "the path of a file with certificates in PEM";
    let bytes = sources::read_bytes(&PathBuf::from(path))
        .map_err(|error| Fault::new(format!("cannot be read: {error}"), accepted))?;
    let unusable = |why: &dyn std::fmt::Display| {
        Fault::new(format!("holds one that cannot be used: {why}"), accepted)
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&bytes) {
        let certificate = certificate.map_err(|error| unusable(&error))?;
        roots.add(certificate).map_err(|error| unusable(&error))?;
    }
    if roots.is_empty() {
        return Err(Fault::new("holds no certificate", accepted));
    }
    Ok(Some(bytes))
}
