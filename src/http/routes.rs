//! Which path is what, and which methods it has: one table.

use hyper::Method;
use percent_encoding::percent_decode_str;

use super::errors::ApiError;

/// What is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// Sign-in and verification.
    Wallet,
    /// What a wallet has to sign.
    Challenge,
    /// A new token for an old sign-in.
    Refresh,
    /// Giving one's tokens back.
    Logout,
    /// Taking tokens back.
    Revoke,
    /// A user's notifications.
    Notifications,
    /// Deleting the read ones.
    NotificationsClear,
    /// Marking one as read.
    NotificationRead,
    /// Publishing to a channel.
    Publish,
    /// Publishing to several.
    Broadcast,
    /// What was published to a channel.
    History,
    /// Who is in a channel.
    Presence,
    /// Channels that have subscribers.
    Channels,
    /// Open sockets.
    Connections,
    /// Closing sockets.
    Disconnect,
    /// Users of the application.
    Users,
    /// Whether the process lives.
    Health,
    /// Whether it can serve.
    Ready,
    /// The public halves of our keys.
    Keys,
    /// This API, described.
    OpenApi,
    /// For WebSockets, and the way to the test page.
    Root,
    /// For WebSockets.
    Socket,
    /// For server-sent events.
    EventStream,
    /// The test page.
    TestPage,
    /// The client library; its companions are files beside it (`web`).
    Library,
}

/// The path of the test page.
pub const TEST_PAGE: &str = "/test/jwt-websocket";

/// A row of the table.
#[derive(Debug)]
pub struct Row {
    /// What it is.
    pub route: Route,
    /// Its path; `{id}` stands for one segment.
    pub pattern: &'static str,
    /// `HEAD` comes with `GET`, `OPTIONS` with everything.
    pub methods: &'static [Method],
}

const GET: &[Method] = &[Method::GET];
const POST: &[Method] = &[Method::POST];
const PUT: &[Method] = &[Method::PUT];
const DELETE: &[Method] = &[Method::DELETE];
const GET_POST: &[Method] = &[Method::GET, Method::POST];
const ALL: &[Method] = &[
    Method::GET,
    Method::POST,
    Method::PATCH,
    Method::PUT,
    Method::DELETE,
];

/// Everything that has a path of its own.
pub static TABLE: [Row; 25] = [
    row(Route::Wallet, "/api/auth/wallet", GET_POST),
    row(Route::Challenge, "/api/auth/challenge", POST),
    row(Route::Refresh, "/api/auth/refresh", POST),
    row(Route::Logout, "/api/auth/logout", POST),
    row(Route::Revoke, "/api/auth/revoke", POST),
    row(Route::Notifications, "/api/user/notifications", ALL),
    row(
        Route::NotificationsClear,
        "/api/user/notifications/clear",
        DELETE,
    ),
    row(
        Route::NotificationRead,
        "/api/user/notifications/{id}/read",
        PUT,
    ),
    row(Route::Publish, "/api/publish", POST),
    row(Route::Broadcast, "/api/broadcast", POST),
    row(Route::History, "/api/history", POST),
    row(Route::Presence, "/api/presence", GET),
    row(Route::Channels, "/api/channels", GET),
    row(Route::Connections, "/api/connections", GET),
    row(Route::Disconnect, "/api/disconnect", POST),
    row(Route::Users, "/api/users", PUT),
    row(Route::Health, "/health", GET),
    row(Route::Ready, "/ready", GET),
    row(Route::Keys, "/.well-known/jwks.json", GET),
    row(Route::OpenApi, "/openapi.json", GET),
    row(Route::Root, "/", GET),
    row(Route::Socket, "/ws", GET),
    row(Route::EventStream, super::event_stream::PATH, GET),
    row(Route::TestPage, TEST_PAGE, GET),
    row(Route::Library, "/fanfare.js", GET),
];

const fn row(route: Route, pattern: &'static str, methods: &'static [Method]) -> Row {
    Row {
        route,
        pattern,
        methods,
    }
}

/// The row of a path, and what stands where its pattern has `{id}`.
pub fn find(path: &str) -> Option<(&'static Row, Option<&str>)> {
    TABLE
        .iter()
        .find_map(|row| capture(row.pattern, path).map(|id| (row, id)))
}

impl Row {
    /// The method to answer as: `HEAD` is answered like `GET`, without the body.
    pub fn method(&self, asked: &Method) -> Option<&'static Method> {
        let asked = if *asked == Method::HEAD {
            &Method::GET
        } else {
            asked
        };
        self.methods.iter().find(|method| *method == asked)
    }

    /// The value of `Allow`.
    pub fn allow(&self) -> String {
        allow(self.methods)
    }
}

/// The value of `Allow` for these methods.
pub fn allow(methods: &[Method]) -> String {
    let mut names: Vec<&str> = methods.iter().map(Method::as_str).collect();
    if methods.contains(&Method::GET) {
        names.push("HEAD");
    }
    names.push("OPTIONS");
    names.join(", ")
}

/// What a segment says without its escapes: what is not UTF-8 names nothing.
pub fn decoded(segment: &str) -> Result<String, ApiError> {
    let text = percent_decode_str(segment).decode_utf8();
    text.map(Into::into).map_err(|_| ApiError::no_route())
}

/// `Some(None)`: the path fits and captures nothing.
fn capture<'a>(pattern: &str, path: &'a str) -> Option<Option<&'a str>> {
    let Some((before, after)) = pattern.split_once("{id}") else {
        return (pattern == path).then_some(None);
    };
    let id = path.strip_prefix(before)?.strip_suffix(after)?;
    (!id.is_empty() && !id.contains('/')).then_some(Some(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str) -> Option<(Route, Option<&str>)> {
        find(path).map(|(row, id)| (row.route, id))
    }

    #[test]
    fn a_path_is_matched_whole() {
        assert_eq!(found("/api/publish"), Some((Route::Publish, None)));
        assert_eq!(found("/"), Some((Route::Root, None)));
        assert_eq!(
            found("/api/user/notifications/n-1/read"),
            Some((Route::NotificationRead, Some("n-1")))
        );
        assert_eq!(
            found("/api/user/notifications/clear"),
            Some((Route::NotificationsClear, None))
        );
        for nothing in [
            "",
            "/api/publish/",
            "//api/publish",
            "/API/publish",
            "/api/user/notifications//read",
            "/api/user/notifications/a/b/read",
            "/api/user/notifications/read",
            "/wss",
        ] {
            assert_eq!(found(nothing), None, "{nothing}");
        }
    }

    #[test]
    fn a_segment_is_decoded_once() {
        let told = |segment| decoded(segment).map_err(|error| error.code);
        assert_eq!(told("n-1+"), Ok("n-1+".into()));
        assert_eq!(told("%30%31%c3%A9%2F%2530"), Ok("01é/%30".into()));
        assert_eq!(told("%3"), Ok("%3".into()));
        assert_eq!(told("%ff"), Err("not_found"));
    }

    #[test]
    fn methods_are_told() {
        let (row, _) = find("/api/auth/wallet").unwrap();
        assert_eq!(row.allow(), "GET, POST, HEAD, OPTIONS");
        assert_eq!(row.method(&Method::HEAD), Some(&Method::GET));
        assert_eq!(row.method(&Method::DELETE), None);
        let (row, _) = find("/api/publish").unwrap();
        assert_eq!(row.allow(), "POST, OPTIONS");
        assert_eq!(row.method(&Method::HEAD), None);
    }
}
