//! Diagnostics, for who runs the server: `tracing` to stderr, one line each.
//!
//! Not for what clients did (`event_log`) nor for numbers (`metrics`).

use std::io::{self, IsTerminal as _};

use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::filter::{EnvFilter, FilterExt as _, filter_fn};
use tracing_subscriber::layer::{Filter, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, fmt};

/// Libraries that show what they read and write below `INFO`: tokens are in there, in headers,
/// queries and messages. No filter can raise them. (Records of the `log` crate are not shown at all.)
const CAPPED: [&str; 6] = [
    "hyper",
    "hyper_util",
    "redis",
    "rustls",
    "tiny_http",
    "tungstenite",
];

/// Begins to log: what `FANFARE_LOG`, else `RUST_LOG`, asks for (`warn`, `info,fanfare=debug`), else
/// `info`, in `dev` with our own `debug`. Colours on a terminal only. A second call does nothing.
pub fn init(dev: bool) {
    let default = if dev { "info,fanfare=debug" } else { "info" };
    let wanted = ["FANFARE_LOG", "RUST_LOG"]
        .iter()
        .filter_map(|name| Some((name, std::env::var(name).ok()?)))
        .find(|(_, value)| !value.trim().is_empty());
    let (filter, mistake) = match &wanted {
        None => (EnvFilter::new(default), None),
        Some((name, value)) => match EnvFilter::try_new(value) {
            Ok(filter) => (filter, None),
            Err(error) => (EnvFilter::new(default), Some((name, error))),
        },
    };
    let lines = fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_filter(safe(filter));
    if tracing_subscriber::registry()
        .with(lines)
        .try_init()
        .is_ok()
        && let Some((name, error)) = mistake
    {
        tracing::warn!("{name}: {error}; using \"{default}\"");
    }
}

/// The filter that was asked for, without what must not be shown.
fn safe<S: Subscriber>(filter: EnvFilter) -> impl Filter<S>
where
    EnvFilter: Filter<S>,
{
    filter.and(filter_fn(is_harmless))
}

/// Whether an event cannot hold what passes over the wire.
fn is_harmless(event: &Metadata<'_>) -> bool {
    let library = event.target().split("::").next().unwrap_or_default();
    *event.level() <= Level::INFO || !CAPPED.contains(&library)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Shown(Arc<Mutex<Vec<u8>>>);

    impl Write for Shown {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn no_filter_shows_what_libraries_read() {
        for wanted in ["trace", "hyper=trace", "hyper::proto=debug,fanfare=trace"] {
            let shown = Shown::default();
            let writer = shown.clone();
            let lines = fmt::layer()
                .with_writer(move || writer.clone())
                .with_filter(safe(EnvFilter::new(format!("{wanted},fanfare=trace"))));
            let subscriber = tracing_subscriber::registry().with(lines);
            tracing::subscriber::with_default(subscriber, || {
                tracing::trace!(target: "hyper::proto", "token in a header");
                tracing::debug!(target: "hyper::proto", "token in a header");
                tracing::info!(target: "hyper::proto", "listening");
                tracing::trace!(target: "fanfare::worker", "a turn");
            });
            let text = String::from_utf8(shown.0.lock().unwrap().clone()).unwrap();
            assert!(!text.contains("token"), "{wanted}: {text}");
            assert!(text.contains("a turn"), "{wanted}: {text}");
            assert!(!wanted.contains("hyper::") || text.contains("listening"));
        }
    }
}
