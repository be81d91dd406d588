//! The client library, as the server gives it to browsers.

mod support;

use support::Server;

const SCRIPTS: [&str; 6] = [
    "/fanfare.js",
    "/fanfare.classic.js",
    "/fanfare-compat.js",
    "/fanfare-react.js",
    "/fanfare-wallet.js",
    "/fanfare-stream.js",
];
/// Loaded by the library alone.
const PRIVATE: &str = "/fanfare-stream.js";

#[test]
fn it_is_there_in_production_for_every_origin() {
    let server = Server::start(&[("server.test_page", "false")]);
    for path in SCRIPTS {
        let reply = server.http("GET", path, &[], "").expect(200);
        let header = |name| reply.header(name).unwrap_or_default().to_owned();
        assert_eq!(
            header("content-type"),
            "text/javascript; charset=utf-8",
            "{path}"
        );
        assert_eq!(header("access-control-allow-origin"), "*", "{path}");
        assert_eq!(
            header("cross-origin-resource-policy"),
            "cross-origin",
            "{path}"
        );
        assert_eq!(header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(reply.header("content-encoding"), None, "{path}");

        if path == PRIVATE {
            continue;
        }
        let types = path.replace(".classic", "").replace(".js", ".d.ts");
        let reply = server.http("GET", &types, &[], "").expect(200);
        assert!(
            reply.header("content-type").unwrap().contains("typescript"),
            "{types}"
        );
        assert!(
            String::from_utf8_lossy(&reply.body).contains("export "),
            "{types}"
        );
    }
    server.http("GET", "/fanfare.ts", &[], "").expect(404);
    let refused = server.http("POST", "/fanfare.js", &[], "").expect(405);
    assert_eq!(refused.header("allow"), Some("GET, HEAD, OPTIONS"));
}

#[test]
fn whoever_has_it_is_told_so() {
    let server = Server::start(&[]);
    let first = server.http("GET", "/fanfare.js", &[], "").expect(200);
    assert_eq!(first.header("cache-control"), Some("no-cache"));
    let mark = first.header("etag").unwrap().to_owned();
    for known in [mark.clone(), format!("W/{mark}"), format!("\"x\", {mark}")] {
        let again = server.http("GET", "/fanfare.js", &[("If-None-Match", &known)], "");
        let again = again.expect(304);
        assert!(again.body.is_empty());
        assert_eq!(again.header("etag"), Some(&*mark));
    }
    server
        .http("GET", "/fanfare.js", &[("If-None-Match", "\"x\"")], "")
        .expect(200);
}

#[test]
fn it_travels_small() {
    let server = Server::start(&[]);
    // HEAD: the body is no text.
    let reply = server.http(
        "HEAD",
        "/fanfare.js",
        &[("Accept-Encoding", "br, gzip")],
        "",
    );
    let reply = reply.expect(200);
    assert_eq!(reply.header("content-encoding"), Some("gzip"));
    assert_eq!(reply.header("vary"), Some("accept-encoding"));
    let length: usize = reply.header("content-length").unwrap().parse().unwrap();
    assert!(length < 8 * 1024, "{length} bytes");
}
