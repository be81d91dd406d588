//! What an operator should know of a Redis, asked once and from outside the running server: whether it can be
//! reached, is new enough, keeps what it is given, and has the replicas that are waited for.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, RedisError};

use super::address::{Address, Finding, Target};
use super::sentinel;
use super::server::{VERSION_MIN, field, info, may_evict, numbers};

/// For everything that one server is asked.
const PATIENCE: Duration = Duration::from_secs(5);

/// What was found of one server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Examined {
    /// Where it is.
    pub server: String,
    /// What it is, or why that is not known.
    pub about: Result<String, String>,
    /// What is not as it should be.
    pub flaws: Vec<Flaw>,
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flaw {
    /// It does not work like this; else it may lose something some day.
    pub is_fatal: bool,
    /// What it is.
    pub found: String,
    /// What to do.
    pub cure: String,
}

/// What is expected of the servers.
#[derive(Debug, Clone, Copy, Default)]
pub struct Expected {
    /// Everything is kept there; else they only carry pub/sub.
    pub keeps: bool,
    /// `broker.redis.wait_replicas`
    pub replicas: u32,
}

/// Asks the server, the master that sentinels name, or the nodes of a cluster that `url` names. Blocks for
/// some seconds at most for each.
pub fn examine(url: &str, authorities: Option<Vec<u8>>, expected: Expected) -> Vec<Examined> {
    let failed = |why: String| {
        vec![Examined {
            server: "redis".into(),
            about: Err(why),
            flaws: Vec::new(),
        }]
    };
    let target = match Target::parse(url, authorities) {
        Ok(target) => target,
        Err(why) => return failed(format!("the URL {why}")),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return failed(error.to_string()),
    };
    runtime.block_on(async {
        let addresses = match &target.finding {
            Finding::Given(address) => vec![address.clone()],
            Finding::Cluster(addresses) => addresses.clone(),
            Finding::Sentinels { sentinels, master } => {
                match sentinel::ask_any(&target, sentinels, master).await {
                    Some((address, _)) => vec![address],
                    None => return failed(format!("no sentinel knows the master {master}")),
                }
            }
        };
        let mut examined = Vec::new();
        for address in addresses {
            examined.push(one(&target, &address, expected).await);
        }
        examined
    })
}

async fn one(target: &Target, address: &Address, expected: Expected) -> Examined {
    let asked = tokio::time::timeout(PATIENCE, ask(target, address)).await;
    let said = match asked {
        Ok(Ok(said)) => Ok(said),
        // The library's texts name commands and causes, never what was sent.
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(String::from("it does not answer")),
    };
    let (about, flaws) = match said {
        Ok(said) => (Ok(about(&said)), flaws(&said, expected)),
        Err(why) => (Err(why), Vec::new()),
    };
    Examined {
        server: address.to_string(),
        about,
        flaws,
    }
}

/// All that `INFO` says.
async fn ask(target: &Target, address: &Address) -> Result<String, RedisError> {
    let client = target.client(address)?;
    let config = AsyncConnectionConfig::new().set_response_timeout(None);
    let mut connection: MultiplexedConnection = client
        .get_multiplexed_async_connection_with_config(&config)
        .await?;
    let mut said = String::new();
    for section in ["server", "memory", "persistence", "stats", "replication"] {
        said += &info(&mut connection, section).await?;
        said.push('\n');
    }
    Ok(said)
}

fn about(said: &str) -> String {
    let version = match field(said, "valkey_version") {
        Some(version) => format!("Valkey {version}"),
        None => format!("Redis {}", field(said, "redis_version").unwrap_or("?")),
    };
    let role = field(said, "role").unwrap_or("?");
    let policy = field(said, "maxmemory_policy").unwrap_or("?");
    let replicas = field(said, "connected_slaves").unwrap_or("?");
    format!("{version}, {role} with {replicas} replicas, {policy}")
}

fn flaws(said: &str, expected: Expected) -> Vec<Flaw> {
    let word = |name| field(said, name).unwrap_or_default();
    let number = |name| word(name).parse::<u64>().unwrap_or_default();
    let mut flaws = Vec::new();
    let mut flaw = |when: bool, is_fatal: bool, found: String, cure: &str| {
        if when {
            let cure = cure.to_owned();
            flaws.push(Flaw {
                is_fatal,
                found,
                cure,
            });
        }
    };
    let version = word("redis_version");
    let (major, minor) = VERSION_MIN;
    flaw(
        numbers(version) < VERSION_MIN,
        true,
        format!("it is version {version}, and {major}.{minor} is the oldest that will do"),
        "upgrade it",
    );
    flaw(
        word("role") != "master",
        true,
        String::from("it is a replica, and takes no writes"),
        "name its master in the URL, or the sentinels: redis+sentinel://..",
    );
    if !expected.keeps {
        return flaws;
    }
    let (policy, most) = (word("maxmemory_policy"), number("maxmemory"));
    flaw(
        may_evict(policy, most),
        true,
        format!(
            "maxmemory-policy is {policy}: full, it throws histories, notifications and users away"
        ),
        "CONFIG SET maxmemory-policy noeviction, and the same in redis.conf",
    );
    flaw(
        policy != "noeviction" && most == 0,
        false,
        format!("maxmemory-policy is {policy}, which counts as soon as there is a maxmemory"),
        "CONFIG SET maxmemory-policy noeviction, and the same in redis.conf",
    );
    let (used, evicted) = (number("used_memory"), number("evicted_keys"));
    flaw(
        evicted > 0,
        false,
        format!("it has thrown {evicted} keys away since it was started"),
        "set maxmemory-policy to noeviction and give it more memory",
    );
    flaw(
        most > 0 && used > most / 10 * 9,
        false,
        format!("its memory is nearly full: {used} of {most} bytes"),
        "raise maxmemory, or lower history, history_ttl and limits.notifications_per_user",
    );
    flaw(
        word("aof_enabled") == "0",
        false,
        String::from("appendonly is off: a crash loses all since its last snapshot"),
        "CONFIG SET appendonly yes, and the same in redis.conf",
    );
    for (name, what) in [
        ("aof_last_write_status", "the last write to its file failed"),
        ("rdb_last_bgsave_status", "its last snapshot failed"),
    ] {
        flaw(
            !matches!(word(name), "" | "ok"),
            true,
            format!("{what} ({name})"),
            "see the log of Redis; its disk is full, most likely",
        );
    }
    let replicas = number("connected_slaves");
    flaw(
        replicas < u64::from(expected.replicas),
        true,
        format!(
            "{} replicas are waited for (broker.redis.wait_replicas), and it has {replicas}",
            expected.replicas
        ),
        "start the replicas, or lower broker.redis.wait_replicas",
    );
    flaws
}

#[cfg(test)]
mod tests {
    use super::*;

    const WELL: &str = "redis_version:7.0.15\r\nmaxmemory:0\r\nused_memory:5\r\nmaxmemory_policy:noeviction\r\n\
        aof_enabled:1\r\naof_last_write_status:ok\r\nrdb_last_bgsave_status:ok\r\nevicted_keys:0\r\n\
        role:master\r\nconnected_slaves:1\r\n";
    const KEEPS: Expected = Expected {
        keeps: true,
        replicas: 1,
    };

    #[test]
    fn one_flaw_is_one_line_with_its_cure() {
        assert_eq!(flaws(WELL, KEEPS), []);
        for (from, to, is_fatal, what) in [
            ("7.0.15", "6.0.16", true, "6.2 is the oldest"),
            ("role:master", "role:slave", true, "replica"),
            ("noeviction", "allkeys-lru", false, "as soon as"),
            ("aof_enabled:1", "aof_enabled:0", false, "appendonly"),
            ("status:ok\r\nrdb", "status:err\r\nrdb", true, "file failed"),
            ("keys:0", "keys:3", false, "3 keys"),
            ("slaves:1", "slaves:0", true, "wait_replicas"),
            ("maxmemory:0", "maxmemory:5", false, "nearly full"),
        ] {
            let said = WELL.replace(from, to);
            let found = flaws(&said, KEEPS);
            assert_eq!(found.len(), 1, "{to}: {found:?}");
            assert!(found[0].found.contains(what), "{found:?}");
            assert_eq!(found[0].is_fatal, is_fatal, "{to}");
        }
        let carries = Expected::default();
        assert_eq!(
            flaws(&WELL.replace("noeviction", "allkeys-lru"), carries),
            []
        );
    }
}
