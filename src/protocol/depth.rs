//! How deep JSON may be nested that one peer sends and others have to read.
//!
//! This server skips nested JSON without recursion and could pass on any depth; the parsers of those
//! who receive it could not.

/// Objects and arrays within each other. What we add around (a reply's data, a list of events, a
/// notification) stays within the 128 that common parsers take, serde_json's for one.
pub const DEPTH_MAX: usize = 100;

/// Whether valid JSON is nested deeper than [`DEPTH_MAX`].
pub fn is_too_deep(json: &str) -> bool {
    // Each level takes two bytes: most events are too short to be looked at.
    if json.len() <= 2 * DEPTH_MAX {
        return false;
    }
    let mut depth = 0usize;
    let mut in_string = false;
    let mut bytes = json.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => in_string = !in_string,
            b'\\' if in_string => {
                bytes.next();
            }
            b'[' | b'{' if !in_string => {
                depth += 1;
                if depth > DEPTH_MAX {
                    return true;
                }
            }
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nested(depth: usize) -> String {
        format!("{}{}", "[".repeat(depth), "]".repeat(depth))
    }

    #[test]
    fn depth_is_counted_to_the_level() {
        assert!(!is_too_deep(&nested(DEPTH_MAX)));
        assert!(is_too_deep(&nested(DEPTH_MAX + 1)));
        let many = vec![nested(DEPTH_MAX - 1); 50].join(",");
        assert!(!is_too_deep(&format!("[{many}]")));
        assert!(is_too_deep(&format!("[[{many}]]")));
    }

    #[test]
    fn what_stands_in_strings_is_no_depth() {
        let brackets = "[{".repeat(500);
        assert!(!is_too_deep(&format!(r#"["{brackets}"]"#)));
        assert!(!is_too_deep(&format!(r#"["\"{brackets}\\"]"#)));
        let deep = nested(500);
        assert!(is_too_deep(&format!(r#"["\\",{deep}]"#)));
    }
}
