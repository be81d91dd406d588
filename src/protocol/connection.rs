//! Names of connections: the node and a number there.

/// The name of the connection with this number. It stands in every line of the event log, and `format!`
/// takes several times as long.
pub fn connection_id(node: &str, serial: u64) -> String {
    const DIGITS_MAX: usize = u64::MAX.ilog10() as usize + 1;
    let mut name = String::with_capacity(node.len() + 1 + DIGITS_MAX);
    name.push_str(node);
    name.push('-');
    push_number(&mut name, serial);
    name
}

fn push_number(text: &mut String, number: u64) {
    if number >= 10 {
        push_number(text, number / 10);
    }
    text.push(char::from(b'0' + (number % 10) as u8));
}

/// The number of the connection with this name, if it is one of this node.
pub fn serial_of(connection_id: &str, node: &str) -> Option<u64> {
    let (named, serial) = connection_id.rsplit_once('-')?;
    let is_plain = serial.bytes().all(|byte| byte.is_ascii_digit());
    serial.parse().ok().filter(|_| is_plain && named == node)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_back_on_its_own_node() {
        let name = connection_id("a-b", u64::MAX);
        assert_eq!(serial_of(&name, "a-b"), Some(u64::MAX));
        assert_eq!(serial_of(&name, "b"), None);
        for strange in ["", "-", "a-b", "a-b-", "a-b-+1", "a-b--1", "a-b-1x", "7"] {
            assert_eq!(serial_of(strange, "a-b"), None, "{strange}");
        }
    }
}
