//! What the browser gets. A stand-in until the test page is here.

/// A file for the browser.
#[derive(Debug)]
pub struct Asset {
    /// Its media type.
    pub content_type: &'static str,
    /// Its bytes.
    pub body: &'static [u8],
}

/// The file at this path, such as `/test/jwt-websocket`.
pub fn asset(_path: &str) -> Option<&'static Asset> {
    None
}
