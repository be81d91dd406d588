//! Where a request really comes from, and which addresses count as one.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use hyper::HeaderMap;
use ipnet::IpNet;

/// A chain of proxies is not longer; what lies behind is not looked at.
const MAX_HOPS: usize = 32;

/// What shares a budget: an IPv4 address, or the /64 of an IPv6 address, because a single machine
/// usually has a whole one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AddressGroup(IpAddr);

impl AddressGroup {
    /// The group of an address.
    pub fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(v6) => {
                let network = u128::from(v6) >> 64 << 64;
                IpAddr::V6(Ipv6Addr::from(network))
            }
            v4 => v4,
        })
    }
}

impl fmt::Display for AddressGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V4(v4) => v4.fmt(f),
            IpAddr::V6(network) => write!(f, "{network}/64"),
        }
    }
}

/// The address of the client behind `peer`: `peer` itself, unless it is a trusted proxy. Then it is
/// the last address of `X-Forwarded-For` that is not a trusted proxy, for only that one was written
/// by somebody we trust; without that header, `X-Real-IP`.
///
/// Nothing to the left of an entry that is no address is believed.
pub fn client_address(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let is_trusted = |address: IpAddr| is_trusted(address, trusted);
    let mut client = peer.to_canonical();
    if !is_trusted(client) {
        return client;
    }
    if !headers.contains_key("x-forwarded-for") {
        let real = headers
            .get("x-real-ip")
            .and_then(|value| value.to_str().ok());
        return real.and_then(read_address).unwrap_or(client);
    }
    // Several headers of one name are one list (RFC 9110 section 5.3).
    let lines: Vec<_> = headers.get_all("x-forwarded-for").iter().collect();
    let hops = lines
        .into_iter()
        .rev()
        .flat_map(|line| line.to_str().unwrap_or("").rsplit(','));
    for hop in hops.take(MAX_HOPS) {
        match read_address(hop) {
            Some(address) => client = address,
            None => break,
        }
        if !is_trusted(client) {
            break;
        }
    }
    client
}

/// Whether an address is one of the trusted proxies.
pub fn is_trusted(address: IpAddr, trusted: &[IpNet]) -> bool {
    let address = address.to_canonical();
    trusted.iter().any(|network| network.contains(&address))
}

/// An address as proxies write it: bare, in brackets, or with a port.
fn read_address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(text);
    bare.parse::<IpAddr>()
        .or_else(|_| text.parse::<SocketAddr>().map(|socket| socket.ip()))
        .ok()
        .map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(peer: &str, headers: &[(&'static str, &str)]) -> String {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        let trusted = ["127.0.0.1/32", "::1/128", "10.0.0.0/8"].map(|net| net.parse().unwrap());
        client_address(peer.parse().unwrap(), &map, &trusted).to_string()
    }

    #[test]
    fn a_stranger_cannot_claim_to_be_somebody_else() {
        let claims = [("x-forwarded-for", "192.0.2.9"), ("x-real-ip", "192.0.2.9")];
        assert_eq!(client("203.0.113.1", &claims), "203.0.113.1");
        // Through our proxy, which appends: what the client wrote stands to the left.
        let through = [("x-forwarded-for", "192.0.2.9, 203.0.113.1")];
        assert_eq!(client("127.0.0.1", &through), "203.0.113.1");
        let split = [
            ("x-forwarded-for", "192.0.2.9"),
            ("x-forwarded-for", "203.0.113.1, 10.0.0.2"),
        ];
        assert_eq!(client("127.0.0.1", &split), "203.0.113.1");
    }

    #[test]
    fn proxies_are_skipped_and_garbage_ends_the_walk() {
        let list = |list| client("127.0.0.1", &[("x-forwarded-for", list)]);
        assert_eq!(list("203.0.113.1, 10.1.2.3, 10.0.0.1"), "203.0.113.1");
        assert_eq!(list("10.9.9.9, 10.0.0.1"), "10.9.9.9");
        assert_eq!(list("203.0.113.1, rubbish, 10.0.0.1"), "10.0.0.1");
        assert_eq!(list("rubbish"), "127.0.0.1");
        assert_eq!(list(""), "127.0.0.1");
        assert_eq!(list("203.0.113.1:4711"), "203.0.113.1");
        assert_eq!(list("[2001:db8::1]:4711"), "2001:db8::1");
        assert_eq!(list("[2001:db8::1]"), "2001:db8::1");
        assert_eq!(list("::ffff:203.0.113.1"), "203.0.113.1");
        assert_eq!(list(&"10.0.0.1,".repeat(5_000)), "127.0.0.1");
    }

    #[test]
    fn the_other_header_counts_only_alone() {
        assert_eq!(
            client("::1", &[("x-real-ip", "203.0.113.1")]),
            "203.0.113.1"
        );
        assert_eq!(
            client("::ffff:127.0.0.1", &[("x-real-ip", "203.0.113.1")]),
            "203.0.113.1"
        );
        assert_eq!(client("::1", &[("x-real-ip", "no")]), "::1");
        let both = [
            ("x-real-ip", "192.0.2.9"),
            ("x-forwarded-for", "203.0.113.1"),
        ];
        assert_eq!(client("::1", &both), "203.0.113.1");
    }
}
