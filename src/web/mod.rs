//! What the browser gets: files that are part of the binary. No template, no disk at run time.
//!
//! Every page keeps to [`CONTENT_SECURITY_POLICY`]: nothing inline, nothing from elsewhere.

/// A file of the binary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asset {
    /// For `Content-Type`.
    pub content_type: &'static str,
    /// The whole file.
    pub body: &'static [u8],
}

/// For the header of this name on every asset: own files and this server's API, nothing else.
pub const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; \
    style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; \
    form-action 'none'; frame-ancestors 'none'";

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// (path, file), a handful: looking through them costs less than a map.
static ASSETS: [(&str, Asset); 4] = [
    (
        "/test/jwt-websocket",
        Asset {
            content_type: HTML,
            body: include_bytes!("test/jwt-websocket.html"),
        },
    ),
    (
        "/test/jwt-websocket.css",
        Asset {
            content_type: CSS,
            body: include_bytes!("test/jwt-websocket.css"),
        },
    ),
    (
        "/test/jwt-websocket.js",
        Asset {
            content_type: JAVASCRIPT,
            body: include_bytes!("test/jwt-websocket.js"),
        },
    ),
    (
        "/test/icon.svg",
        Asset {
            content_type: SVG,
            body: include_bytes!("test/icon.svg"),
        },
    ),
];

/// The file that is served at this path (without query), if there is one.
pub fn asset(path: &str) -> Option<&'static Asset> {
    let found = ASSETS.iter().find(|(known, _)| *known == path);
    found.map(|(_, asset)| asset)
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

    #[test]
    fn pages_load_only_files_that_are_served() {
        let mut looked_at = 0;
        for (path, asset) in &ASSETS {
            let text = std::str::from_utf8(asset.body).unwrap();
            for reference in references(text) {
                looked_at += 1;
                assert!(super::asset(reference).is_some(), "{path}: {reference}");
            }
        }
        assert!(looked_at >= 3, "the search finds nothing any more");
    }

    #[test]
    fn pages_hold_nothing_that_the_policy_would_block() {
        for (path, asset) in ASSETS.iter().filter(|(_, a)| a.content_type == HTML) {
            let page = std::str::from_utf8(asset.body).unwrap();
            for blocked in ["<style", " style=", " onclick=", "javascript:", "<script>"] {
                assert!(!page.contains(blocked), "{path} has {blocked:?}");
            }
        }
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
