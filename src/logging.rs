//! Diagnostics, for who runs the server: `tracing` to stderr, one line each.
//!
//! Not for what clients did (`event_log`) nor for numbers (`metrics`).

use std::io::{self, IsTerminal as _};
use std::sync::OnceLock;

use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::filter::{EnvFilter, FilterExt as _, ParseError, filter_fn};
use tracing_subscriber::layer::{Filter, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, Registry, fmt, reload};

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

/// Where the filter in force is replaced; empty before [`init`].
static FILTER: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

/// Begins to log: what `FANFARE_LOG`, else `RUST_LOG`, asks for (`warn`, `info,fanfare=debug`), else
/// `level` (`logs.level`). Colours on a terminal only. A second call does nothing.
pub fn init(level: &str) {
    let (filter, mistake) = filter(level);
    let (filter, handle) = reload::Layer::new(filter);
    let lines = fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_filter(safe(filter));
    if tracing_subscriber::registry()
        .with(lines)
        .try_init()
        .is_ok()
    {
        let _ = FILTER.set(handle);
        if let Some((name, error)) = mistake {
            tracing::warn!("{name}: {error}; using \"{level}\"");
        }
    }
}

/// Shows what `level` says from now on, unless the environment says otherwise.
pub fn renew(level: &str) {
    if let Some(handle) = FILTER.get() {
        // It fails only when the subscriber is gone, and then nobody would hear of it.
        let _ = handle.reload(filter(level).0);
    }
}

/// The filter to use, and why it is not the one that the environment asks for.
fn filter(level: &str) -> (EnvFilter, Option<(&'static str, ParseError)>) {
    let wanted = ["FANFARE_LOG", "RUST_LOG"]
        .iter()
        .filter_map(|name| Some((*name, std::env::var(name).ok()?)))
        .find(|(_, value)| !value.trim().is_empty());
    match wanted {
        None => (EnvFilter::new(level), None),
        Some((name, value)) => match EnvFilter::try_new(value) {
            Ok(filter) => (filter, None),
            Err(error) => (EnvFilter::new(level), Some((name, error))),
        },
    }
}

/// The filter that was asked for, without what must not be shown.
fn safe<S: Subscriber>(filter: impl Filter<S>) -> impl Filter<S> {
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
