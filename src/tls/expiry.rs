//! Until when a certificate is good: the one thing that rustls reads and does not tell.
//!
//! RFC 5280, section 4.1: `Certificate ::= SEQUENCE { TBSCertificate ::= SEQUENCE { [0] version OPTIONAL,
//! serialNumber, signature, issuer, validity SEQUENCE { notBefore, notAfter }, .. } .. }`, in DER.

use time::{Date, Month, PrimitiveDateTime, Time};

const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// In milliseconds since 1970; `None`: this is no certificate.
pub(super) fn not_after_ms(der: &[u8]) -> Option<u64> {
    let (SEQUENCE, certificate, _) = element(der)? else {
        return None;
    };
    let (SEQUENCE, mut fields, _) = element(certificate)? else {
        return None;
    };
    if let (VERSION, _, rest) = element(fields)? {
        fields = rest;
    }
    // Serial number, signature, issuer.
    for _ in 0..3 {
        fields = element(fields)?.2;
    }
    let (SEQUENCE, validity, _) = element(fields)? else {
        return None;
    };
    let (kind, text, _) = element(element(validity)?.2)?;
    unix_ms(kind, text)
}

/// The first element: its tag, its content, what follows.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
        // Four bytes are four gigabytes.
        let is_sane = (1..=4).contains(&bytes.len());
        let length = bytes
            .iter()
            .fold(0, |sum, byte| sum << 8 | usize::from(*byte));
        (is_sane.then_some(length)?, rest)
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// `YYMMDDHHMMSSZ`, where 50 is 1950 and 49 is 2049, or `YYYYMMDDHHMMSSZ`.
fn unix_ms(kind: u8, text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    let (year, rest) = match kind {
        UTC_TIME => {
            let (year, rest) = text.split_at_checked(2)?;
            let year: i32 = year.parse().ok()?;
            (
                if year < 50 {
                    2_000 + year
                } else {
                    1_900 + year
                },
                rest,
            )
        }
        GENERALIZED_TIME => {
            let (year, rest) = text.split_at_checked(4)?;
            (year.parse().ok()?, rest)
        }
        _ => return None,
    };
    let number = |at: usize| rest.get(at..at + 2)?.parse::<u8>().ok();
    let month = Month::try_from(number(0)?).ok()?;
    let date = Date::from_calendar_date(year, month, number(2)?).ok()?;
    let time = Time::from_hms(number(4)?, number(6)?, number(8)?).ok()?;
    let seconds = PrimitiveDateTime::new(date, time)
        .assume_utc()
        .unix_timestamp();
    // What ended before 1970 has ended.
    Some(u64::try_from(seconds).unwrap_or(0) * 1_000)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    fn certificate(year: i32) -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["rt.example".into()]).unwrap();
        params.not_after = date_time_ymd(year, 7, 9);
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn the_end_is_read_in_both_spellings() {
        // 2049 is the last year in two digits.
        for (year, seconds) in [
            (2031, 1_941_321_600),
            (2049, 2_509_401_600),
            (2061, 2_888_092_800),
        ] {
            assert_eq!(
                not_after_ms(&certificate(year)),
                Some(seconds * 1_000),
                "{year}"
            );
        }
    }

    #[test]
    fn what_is_cut_or_bent_is_no_certificate() {
        let whole = certificate(2031);
        for end in 0..whole.len() {
            assert_eq!(not_after_ms(&whole[..end]), None, "{end}");
        }
        for at in 0..whole.len() {
            let mut bent = whole.clone();
            bent[at] ^= 0xff;
            // It may be another date; it may not panic.
            let _ = not_after_ms(&bent);
        }
        assert_eq!(not_after_ms(&[0x30, 0x85, 1, 1, 1, 1, 1]), None);
        assert_eq!(not_after_ms(&[0x30, 0x80]), None);
    }
}
