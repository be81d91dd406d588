//! Where a Redis is, as `broker.redis.url` says it: one server, sentinels, or nodes of a cluster.

use std::fmt;

use redis::{
    Client, ConnectionAddr, IntoConnectionInfo, ProtocolVersion, RedisConnectionInfo,
    TlsCertificates,
};

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Address {
    pub(super) host: String,
    pub(super) port: u16,
}

/// How the server that takes writes is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Finding {
    /// It is this one, or this one knows the cluster that it is part of.
    Given(Address),
    /// These are nodes of a cluster, any of which knows the others.
    Cluster(Vec<Address>),
    /// Sentinels know where the master of this name is.
    Sentinels {
        sentinels: Vec<Address>,
        master: String,
    },
}

/// A Redis and how to talk to it. Its `Debug` shows no password.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) finding: Finding,
    tls: bool,
    username: Option<String>,
    password: Option<String>,
    /// Of the sentinels themselves.
    sentinel_username: Option<String>,
    sentinel_password: Option<String>,
    database: i64,
    /// PEM certificates that are trusted instead of the system's.
    authorities: Option<Vec<u8>>,
}

const SCHEMES: [(&str, bool, bool); 4] = [
    ("redis://", false, false),
    ("rediss://", true, false),
    ("redis+sentinel://", false, true),
    ("rediss+sentinel://", true, true),
];

impl Target {
    /// Reads `redis://[user:password@]host[:port][,host..][/database]` and its relatives. What it
    /// says of a mistake repeats nothing of the text.
    pub(super) fn parse(text: &str, authorities: Option<Vec<u8>>) -> Result<Self, &'static str> {
        let scheme = |text: &str| {
            SCHEMES
                .into_iter()
                .find(|(scheme, ..)| text.starts_with(scheme))
        };
        let (prefix, tls, has_sentinels) = scheme(text).ok_or("has another scheme")?;
        let rest = &text[prefix.len()..];
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (rest, path) = rest.split_once('/').map_or((rest, ""), |(hosts, path)| {
            // A later node of the list may bring a scheme of its own, with slashes.
            if hosts.ends_with(':') {
                (rest, "")
            } else {
                (hosts, path)
            }
        });
        let (mut username, mut password) = (None, None);
        let mut addresses = Vec::new();
        let default_port = if has_sentinels { 26_379 } else { 6_379 };
        for node in rest.split(',').map(str::trim) {
            let node = scheme(node).map_or(node, |(prefix, ..)| &node[prefix.len()..]);
            let node = node.split('/').next().unwrap_or(node);
            let host = match node.rsplit_once('@') {
                Some((credentials, host)) => {
                    let (user, pass) = credentials
                        .split_once(':')
                        .map_or((credentials, None), |(user, pass)| (user, Some(pass)));
                    username = Some(decoded(user)?).filter(|user| !user.is_empty());
                    password = pass.map(decoded).transpose()?;
                    host
                }
                None => node,
            };
            addresses.push(Address::parse(host, default_port)?);
        }
        let finding = if has_sentinels {
            let master = path.split('/').next().filter(|name| !name.is_empty());
            Finding::Sentinels {
                sentinels: addresses,
                master: decoded(master.ok_or("names no master: redis+sentinel://HOST/MASTER")?)?,
            }
        } else if addresses.len() > 1 {
            Finding::Cluster(addresses)
        } else {
            Finding::Given(addresses.remove(0))
        };
        let database = path.split('/').nth(usize::from(has_sentinels));
        let database = match database.filter(|text| !text.is_empty()) {
            Some(text) => text
                .parse()
                .map_err(|_| "has a database that is no number")?,
            None => 0,
        };
        let mut target = Self {
            finding,
            tls,
            username,
            password,
            sentinel_username: None,
            sentinel_password: None,
            database,
            authorities,
        };
        for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            match name {
                "sentinel_username" => target.sentinel_username = Some(decoded(value)?),
                "sentinel_password" => target.sentinel_password = Some(decoded(value)?),
                _ => {}
            }
        }
        Ok(target)
    }

    /// A client of one data server.
    pub(super) fn client(&self, address: &Address) -> redis::RedisResult<Client> {
        let mut settings = RedisConnectionInfo::default()
            .set_protocol(ProtocolVersion::RESP3)
            .set_lib_name("fanfare", env!("CARGO_PKG_VERSION"))
            .set_db(self.database);
        if let Some(username) = &self.username {
            settings = settings.set_username(username);
        }
        if let Some(password) = &self.password {
            settings = settings.set_password(password);
        }
        self.with(address, settings)
    }

    /// A client of one sentinel.
    pub(super) fn sentinel_client(&self, address: &Address) -> redis::RedisResult<Client> {
        let mut settings = RedisConnectionInfo::default();
        if let Some(username) = &self.sentinel_username {
            settings = settings.set_username(username);
        }
        if let Some(password) = &self.sentinel_password {
            settings = settings.set_password(password);
        }
        self.with(address, settings)
    }

    fn with(&self, address: &Address, settings: RedisConnectionInfo) -> redis::RedisResult<Client> {
        let (host, port) = (address.host.clone(), address.port);
        let address = if self.tls {
            ConnectionAddr::TcpTls {
                host,
                port,
                insecure: false,
                tls_params: None,
            }
        } else {
            ConnectionAddr::Tcp(host, port)
        };
        let info = address.into_connection_info()?.set_redis_settings(settings);
        match &self.authorities {
            Some(authorities) if self.tls => Client::build_with_tls(
                info,
                TlsCertificates {
                    client_tls: None,
                    root_cert: Some(authorities.clone()),
                },
            ),
            _ => Client::open(info),
        }
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target")
            .field("finding", &self.finding)
            .field("tls", &self.tls)
            .finish_non_exhaustive()
    }
}

impl Address {
    fn parse(text: &str, default_port: u16) -> Result<Self, &'static str> {
        const NO_HOST: &str = "has a node without a host";
        let (host, port) = if let Some(bracketed) = text.strip_prefix('[') {
            let (host, rest) = bracketed.split_once(']').ok_or(NO_HOST)?;
            (host, rest.strip_prefix(':'))
        } else {
            match text.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            }
        };
        let is_host = |char: char| char.is_alphanumeric() || "-._:%".contains(char);
        if host.is_empty() || !host.chars().all(is_host) {
            return Err(NO_HOST);
        }
        let port = match port {
            Some(port) => port
                .parse()
                .map_err(|_| "has a node that is no HOST:PORT")?,
            None => default_port,
        };
        Ok(Self {
            host: host.to_owned(),
            port,
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Takes percent escapes out.
fn decoded(text: &str) -> Result<String, &'static str> {
    const BROKEN: &str = "has a broken percent escape";
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || char::from(rest.next()?).to_digit(16);
        let (high, low) = (digit().ok_or(BROKEN)?, digit().ok_or(BROKEN)?);
        bytes.push((high * 16 + low) as u8);
    }
    String::from_utf8(bytes).map_err(|_| BROKEN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(host: &str, port: u16) -> Address {
        Address {
            host: host.into(),
            port,
        }
    }

    #[test]
    fn every_form_is_understood() {
        let target = |text| Target::parse(text, None).unwrap();
        let one = target("redis://127.0.0.1");
        assert_eq!(one.finding, Finding::Given(address("127.0.0.1", 6379)));
        assert!(!one.tls && one.password.is_none() && one.database == 0);
        let one = target("rediss://user:p%40s:s@redis.example.com:1/3");
        assert_eq!(one.finding, Finding::Given(address("redis.example.com", 1)));
        assert!(one.tls);
        assert_eq!(one.username.as_deref(), Some("user"));
        assert_eq!(one.password.as_deref(), Some("p@s:s"));
        assert_eq!(one.database, 3);
        let nodes = vec![address("a", 7000), address("::1", 7001), address("c", 6379)];
        let cluster = target("redis://:pw@a:7000,[::1]:7001,redis://c");
        assert_eq!(cluster.finding, Finding::Cluster(nodes));
        assert_eq!(cluster.username, None);
        assert_eq!(cluster.password.as_deref(), Some("pw"));
        let watched = target("redis+sentinel://:pw@a,b:26380/mymaster/2?sentinel_password=x");
        let sentinels = vec![address("a", 26_379), address("b", 26_380)];
        let master = "mymaster".to_owned();
        assert_eq!(watched.finding, Finding::Sentinels { sentinels, master });
        assert_eq!(watched.database, 2);
        assert_eq!(watched.sentinel_password.as_deref(), Some("x"));
        assert!(!format!("{watched:?}").contains("pw"));
    }

    #[test]
    fn what_is_none_is_refused() {
        for text in [
            "",
            "127.0.0.1:6379",
            "http://a",
            "redis://",
            "redis://a:x",
            "redis://a,,b",
            "redis://a/b",
            "redis://:%2@a",
            "redis+sentinel://a",
            "redis://u:%zz@a",
        ] {
            assert!(Target::parse(text, None).is_err(), "{text}");
        }
    }
}
