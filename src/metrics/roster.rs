//! Who is connected, page by page: what the dashboard asks the workers for, and how it is told.

use std::sync::Arc;

use serde::Serialize;

/// Connections on a page.
pub const PAGE: usize = 50;
/// Bytes of a filter; longer ones fit nobody.
const FILTER_BYTES_MAX: usize = 255;

/// Which connections are to be shown. Empty filters fit all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asked {
    /// A part of the user's id.
    pub user: String,
    /// How the client's address begins.
    pub address: String,
    /// The key of a channel that it follows.
    pub channel: String,
    /// Only those with a larger number.
    pub after: u64,
}

/// Asks the workers for so many rows, in the order of their numbers; `None` if they are too busy.
pub type Roster = Arc<dyn Fn(Asked, usize) -> Option<Vec<Row>> + Send + Sync>;

/// A connection.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// Its number, by which pages go on.
    #[serde(skip)]
    pub serial: u64,
    /// Its name in the API.
    pub connection_id: String,
    /// Whose it is.
    pub user_id: Arc<str>,
    /// The client's address.
    pub address: String,
    /// Since when.
    pub connected_at: String,
    /// `websocket` or `sse`.
    pub transport: &'static str,
    /// Channels that it follows.
    pub channels: usize,
}

impl Asked {
    /// Of the query of a request; `None` if something in it is strange.
    pub fn parse(query: &str) -> Option<Self> {
        let mut asked = Self::default();
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            let value = value.trim();
            if value.len() > FILTER_BYTES_MAX {
                return None;
            }
            match &*name {
                "user" => asked.user = value.to_owned(),
                "address" => asked.address = value.to_owned(),
                "channel" => asked.channel = value.to_owned(),
                "after" => asked.after = value.parse().ok()?,
                _ => return None,
            }
        }
        Some(asked)
    }
}

/// A page of what `roster` says, as JSON; `None` if it says nothing.
pub fn page(roster: &Roster, asked: Asked) -> Option<String> {
    #[derive(Serialize)]
    struct Answer<'a> {
        connections: &'a [Row],
        next: Option<u64>,
    }
    let mut rows = roster(asked, PAGE + 1)?;
    let is_last = rows.len() <= PAGE;
    rows.truncate(PAGE);
    let answer = Answer {
        connections: &rows,
        next: rows.last().filter(|_| !is_last).map(|row| row.serial),
    };
    serde_json::to_string(&answer).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_is_read_and_what_is_strange_is_nothing() {
        assert_eq!(Asked::parse(""), Some(Asked::default()));
        let asked = Asked::parse("user=ann%20b&address=10.&channel=post_42&after=7").unwrap();
        assert_eq!((&*asked.user, &*asked.address), ("ann b", "10."));
        assert_eq!((&*asked.channel, asked.after), ("post_42", 7));
        let long = format!("user={}", "x".repeat(256));
        for strange in ["after=x", "after=-1", "limit=5", &long] {
            assert_eq!(Asked::parse(strange), None, "{strange}");
        }
    }

    #[test]
    fn a_page_says_where_the_next_one_begins() {
        let roster: Roster = Arc::new(|asked, limit| {
            let row = |serial| Row {
                serial,
                connection_id: String::new(),
                user_id: "u".into(),
                address: String::new(),
                connected_at: String::new(),
                transport: "sse",
                channels: 0,
            };
            Some((asked.after + 1..=70).take(limit).map(row).collect())
        });
        let next = |after| {
            let asked = Asked {
                after,
                ..Asked::default()
            };
            let answer: serde_json::Value =
                serde_json::from_str(&page(&roster, asked).unwrap()).unwrap();
            (
                answer["connections"].as_array().unwrap().len(),
                answer["next"].as_u64(),
            )
        };
        assert_eq!(next(0), (50, Some(50)));
        assert_eq!(next(20), (50, None));
        assert_eq!(next(69), (1, None));
        let busy: Roster = Arc::new(|_, _| None);
        assert_eq!(page(&busy, Asked::default()), None);
    }
}
