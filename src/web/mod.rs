//! What the browser gets. A stand-in until the test page is here.

/// A file for the browser.
#[derive(Debug)]
pub struct Asset {
    /// Its media type.
    pub content_type: &'static str,
    /// Its bytes.
    pub body: &'static [u8],
}

/// For the header of this name on every asset: own files and this server's API, nothing else.
pub const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; \
    style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; \
    form-action 'none'; frame-ancestors 'none'";

/// The file at this path, such as `/test/jwt-websocket`.
pub fn asset(_path: &str) -> Option<&'static Asset> {
    None
}
