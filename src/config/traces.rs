//! The second pass for `traces.*`.

use hyper::header::{HeaderName, HeaderValue};
use url::Url;

use super::mistake::Fault;
use super::raw::Value;
use super::reader::Reader;
use super::{Config, Traces, urls, values};
use crate::trace::{Sampling, Target};

/// Where OTLP over HTTP takes spans, if the URL names no path.
const PATH: &str = "/v1/traces";

pub(super) fn traces(reader: &mut Reader, authorities: Option<&[u8]>) -> Option<Option<Traces>> {
    let url = reader.read("traces.otlp_url", receiver);
    let headers = reader.headers("traces.headers");
    let service = reader.read("traces.service_name", values::name);
    let sample = reader.read("traces.sample", share);
    let per_second = reader.read("traces.per_second", values::rate);
    let (url, headers, service) = (url?, headers?, service?);
    let sampling = Sampling {
        per_million: sample?,
        per_second: per_second?,
    };
    Some((!url.is_empty()).then(|| Traces {
        target: Target {
            url,
            headers,
            service,
            authorities: authorities.map(<[u8]>::to_vec),
        },
        sampling,
    }))
}

impl Config {
    /// Which requests are traced; `None`: none, as there is nobody to tell.
    pub fn sampling(&self) -> Option<Sampling> {
        self.traces.as_ref().map(|traces| traces.sampling)
    }
}

/// Where spans go, or nothing.
fn receiver(value: &Value) -> Result<String, Fault> {
    let accepted = "an http:// or https:// URL, such as \"http://127.0.0.1:4318\"";
    let text = urls::callback(value).map_err(|fault| Fault::new(fault.problem, accepted))?;
    match Url::parse(&text) {
        Ok(mut url) if url.path() == "/" => {
            url.set_path(PATH);
            Ok(url.into())
        }
        _ => Ok(text),
    }
}

/// A part of the whole, in percent; of a million.
fn share(value: &Value) -> Result<u32, Fault> {
    let text = values::text(value)?;
    let percent = text
        .strip_suffix('%')
        .and_then(|number| number.trim().parse::<f64>().ok())
        .filter(|percent| (0.0..=100.0).contains(percent))
        .ok_or_else(|| {
            let accepted = "text with a number from 0 to 100 and a percent sign, such as \"0.5%\"";
            Fault::new("is no share", accepted)
        })?;
    Ok((percent / 100.0 * f64::from(Sampling::ALL)).round() as u32)
}

/// One header, `Name: value`.
pub(super) fn header(line: &[u8]) -> Result<(HeaderName, HeaderValue), &'static str> {
    /// Those that belong to the request itself.
    const OURS: [&str; 5] = [
        "content-type",
        "content-length",
        "host",
        "connection",
        "transfer-encoding",
    ];
    let colon = line.iter().position(|byte| *byte == b':');
    let (name, value) = line.split_at(colon.ok_or("has no colon")?);
    let name = HeaderName::from_bytes(name.trim_ascii()).map_err(|_| "has no name of a header")?;
    if OURS.contains(&name.as_str()) {
        return Err("is one that Fanfare sets");
    }
    let mut value = HeaderValue::from_bytes(value[1..].trim_ascii())
        .map_err(|_| "has a value that no header can have")?;
    value.set_sensitive(true);
    Ok((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_a_percentage() {
        let share = |text: &str| share(&Value::Text(text.into())).ok();
        assert_eq!(share("1%"), Some(10_000));
        assert_eq!(share("0.0001%"), Some(1));
        assert_eq!((share("0%"), share("100%")), (Some(0), Some(Sampling::ALL)));
        for nonsense in ["", "%", "1", "101%", "-1%", "NaN%", "inf%", "1 %%"] {
            assert_eq!(share(nonsense), None, "{nonsense}");
        }
    }

    #[test]
    fn a_receiver_without_a_path_has_the_usual_one() {
        let receiver = |text: &str| receiver(&Value::Text(text.into())).ok();
        assert_eq!(receiver("").as_deref(), Some(""));
        for (given, meant) in [
            ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
            (
                "https://otel.example.com/",
                "https://otel.example.com/v1/traces",
            ),
            (
                "https://otel.example.com/in/v1/traces",
                "https://otel.example.com/in/v1/traces",
            ),
        ] {
            assert_eq!(receiver(given).as_deref(), Some(meant));
        }
        assert_eq!(receiver("grpc://127.0.0.1:4317"), None);
    }

    #[test]
    fn a_header_is_a_name_and_a_value_that_is_not_shown() {
        let (name, value) = header(b"Authorization: Bearer x").unwrap();
        assert_eq!(
            (name.as_str(), value.as_bytes()),
            ("authorization", b"Bearer x".as_slice())
        );
        assert!(!format!("{value:?}").contains("Bearer"));
        for nonsense in [
            "",
            "x",
            ": x",
            "a b: x",
            "a: \u{1}",
            "Host: x",
            "content-length: 0",
        ] {
            assert!(header(nonsense.as_bytes()).is_err(), "{nonsense}");
        }
    }
}
