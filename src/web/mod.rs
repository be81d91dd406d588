//! What the browser gets: files that are part of the binary. No template, no disk at run time.
//!
//! Every page keeps to [`CONTENT_SECURITY_POLICY`]: nothing inline, nothing from elsewhere. The client
//! library is built from `client/src` by `client/build.mjs`; what that made is committed (`client/dist`).

use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::LazyLock;

use aws_lc_rs::digest;
use flate2::Compression;
use flate2::write::GzEncoder;

/// A file of the binary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asset {
    /// For `Content-Type`.
    pub content_type: &'static str,
    /// The whole file.
    pub body: &'static [u8],
    /// Whether it is the client library, which pages of any origin may load, in production, too.
    pub is_library: bool,
}

/// An asset, ready to be sent.
#[derive(Debug)]
pub struct Packed {
    /// What it is made of.
    pub asset: &'static Asset,
    /// For `ETag`: a digest of the file.
    pub etag: String,
    /// The file, gzipped.
    pub gzipped: Vec<u8>,
}

/// For the header of this name on every asset: own files and this server's API, nothing else.
pub const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; \
    style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; \
    form-action 'none'; frame-ancestors 'none'";

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";
const TYPESCRIPT: &str = "application/typescript; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// (path, file), a handful: looking through them costs less than a map.
static ASSETS: [(&str, Asset); 15] = [
    page(
        "/test/jwt-websocket",
        HTML,
        include_bytes!("test/jwt-websocket.html"),
    ),
    page(
        "/test/jwt-websocket.css",
        CSS,
        include_bytes!("test/jwt-websocket.css"),
    ),
    page(
        "/test/jwt-websocket.js",
        JAVASCRIPT,
        include_bytes!("test/jwt-websocket.js"),
    ),
    page("/test/log.js", JAVASCRIPT, include_bytes!("test/log.js")),
    page("/test/icon.svg", SVG, include_bytes!("test/icon.svg")),
    library(
        "/fanfare.js",
        JAVASCRIPT,
        include_bytes!("client/dist/fanfare.js"),
    ),
    library(
        "/fanfare.classic.js",
        JAVASCRIPT,
        include_bytes!("client/dist/fanfare.classic.js"),
    ),
    library(
        "/fanfare-compat.js",
        JAVASCRIPT,
        include_bytes!("client/dist/fanfare-compat.js"),
    ),
    library(
        "/fanfare-react.js",
        JAVASCRIPT,
        include_bytes!("client/dist/fanfare-react.js"),
    ),
    library(
        "/fanfare-stream.js",
        JAVASCRIPT,
        include_bytes!("client/dist/fanfare-stream.js"),
    ),
    library(
        "/fanfare-wallet.js",
        JAVASCRIPT,
        include_bytes!("client/dist/fanfare-wallet.js"),
    ),
    library(
        "/fanfare.d.ts",
        TYPESCRIPT,
        include_bytes!("client/dist/fanfare.d.ts"),
    ),
    library(
        "/fanfare-compat.d.ts",
        TYPESCRIPT,
        include_bytes!("client/dist/fanfare-compat.d.ts"),
    ),
    library(
        "/fanfare-react.d.ts",
        TYPESCRIPT,
        include_bytes!("client/dist/fanfare-react.d.ts"),
    ),
    library(
        "/fanfare-wallet.d.ts",
        TYPESCRIPT,
        include_bytes!("client/dist/fanfare-wallet.d.ts"),
    ),
];

/// On the listener of the metrics: (path, file).
static DASHBOARD: [(&str, Asset); 4] = [
    page("/dashboard.svg", SVG, include_bytes!("test/icon.svg")),
    page("/", HTML, include_bytes!("dashboard/dashboard.html")),
    page(
        "/dashboard.css",
        CSS,
        include_bytes!("dashboard/dashboard.css"),
    ),
    page(
        "/dashboard.js",
        JAVASCRIPT,
        include_bytes!("dashboard/dashboard.js"),
    ),
];

/// The file of the dashboard at this path. They hold no figures, so anybody may load them.
pub fn dashboard(path: &str) -> Option<&'static Asset> {
    let found = DASHBOARD.iter().find(|(known, _)| *known == path);
    found.map(|(_, asset)| asset)
}

const fn page(
    path: &'static str,
    content_type: &'static str,
    body: &'static [u8],
) -> (&'static str, Asset) {
    (
        path,
        Asset {
            content_type,
            body,
            is_library: false,
        },
    )
}

const fn library(
    path: &'static str,
    content_type: &'static str,
    body: &'static [u8],
) -> (&'static str, Asset) {
    (
        path,
        Asset {
            content_type,
            body,
            is_library: true,
        },
    )
}

/// Made when the first file is asked for: a few milliseconds, once.
static PACKED: LazyLock<Vec<Packed>> =
    LazyLock::new(|| ASSETS.iter().map(|(_, asset)| pack(asset)).collect());

fn pack(asset: &'static Asset) -> Packed {
    let digest = digest::digest(&digest::SHA256, asset.body);
    let etag = digest.as_ref()[..12]
        .iter()
        .fold(String::from("\""), |mut etag, byte| {
            let _ = write!(etag, "{byte:02x}");
            etag
        });
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    // Writing into memory does not fail.
    let _ = encoder.write_all(asset.body);
    Packed {
        asset,
        etag: etag + "\"",
        gzipped: encoder.finish().unwrap_or_default(),
    }
}

/// The file that is served at this path (without query), if there is one.
pub fn asset(path: &str) -> Option<&'static Packed> {
    let found = ASSETS.iter().position(|(known, _)| *known == path)?;
    PACKED.get(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reference that a browser would load: `src="…"`, `href="…"`, or `url(…)` in CSS.
    fn references(text: &str) -> Vec<&str> {
        let mut found = Vec::new();
        for (opening, closing) in [("src=\"", '"'), ("href=\"", '"'), ("url(", ')')] {
            for part in text.split(opening).skip(1) {
                found.push(part.split(closing).next().unwrap());
            }
        }
        found
    }

    /// What the metrics listener serves beside the dashboard.
    const LISTENER: [&str; 2] = ["/stats", "/metrics"];

    #[test]
    fn pages_load_only_files_that_are_served() {
        let mut looked_at = 0;
        for (path, asset) in ASSETS.iter().chain(&DASHBOARD) {
            let text = std::str::from_utf8(asset.body).unwrap();
            for reference in references(text) {
                looked_at += 1;
                let is_served = super::asset(reference).is_some()
                    || dashboard(reference).is_some()
                    || LISTENER.contains(&reference);
                assert!(is_served, "{path}: {reference}");
            }
        }
        assert!(looked_at >= 3, "the search finds nothing any more");
    }

    #[test]
    fn pages_hold_nothing_that_the_policy_would_block() {
        let pages = ASSETS.iter().chain(&DASHBOARD);
        for (path, asset) in pages.filter(|(_, asset)| asset.content_type == HTML) {
            let page = std::str::from_utf8(asset.body).unwrap();
            for blocked in ["<style", " style=", " onclick=", "javascript:", "<script>"] {
                assert!(!page.contains(blocked), "{path} has {blocked:?}");
            }
        }
    }

    #[test]
    fn the_library_is_small() {
        let library = super::asset("/fanfare.js").unwrap();
        for path in ["/fanfare.js", "/fanfare.classic.js"] {
            let bytes = super::asset(path).unwrap().gzipped.len();
            assert!(bytes < 8 * 1024, "{path}: {bytes}");
        }
        let mut inflated = Vec::new();
        std::io::copy(
            &mut flate2::read::GzDecoder::new(&library.gzipped[..]),
            &mut inflated,
        )
        .unwrap();
        assert_eq!(inflated, library.asset.body);
    }

    #[test]
    fn every_file_has_a_mark_of_its_own() {
        let marks: std::collections::BTreeSet<_> =
            PACKED.iter().map(|packed| &packed.etag).collect();
        assert_eq!(marks.len(), ASSETS.len());
        assert!(
            marks
                .iter()
                .all(|mark| mark.len() == 26 && mark.starts_with('"') && mark.ends_with('"'))
        );
    }

    #[test]
    fn only_whole_paths_are_files() {
        assert!(asset("/test/jwt-websocket").is_some());
        for path in [
            "",
            "/",
            "/test/",
            "/test/jwt-websocket/",
            "/test/../test/icon.svg",
        ] {
            assert!(asset(path).is_none(), "{path}");
        }
    }
}
