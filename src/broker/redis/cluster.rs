//! Follows the primaries of a cluster.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use redis::Value;

use super::address::Address;
use super::link::{Cluster, NOBODY, Routes, Shared};
use super::server::{Refusal, Server};
use super::slot::SLOTS;

/// How often it is looked where the slots are, while all is well and while something is missing.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
const LOOK_INTERVAL_LACKING: Duration = Duration::from_millis(250);
/// Between two looks that calls have asked for.
const LOOK_PAUSE: Duration = Duration::from_millis(50);

/// Slots from the first to the second, and their primary.
type Range = (u16, u16, Address);

/// Keeps connected to the primaries, until no node is to be reached.
pub(super) async fn follow(
    shared: &Arc<Shared>,
    seeds: &[Address],
    mut servers: HashMap<Address, Arc<Server>>,
) -> Refusal {
    loop {
        servers.retain(|_, server| !server.is_broken());
        let ranges = match look(shared, seeds, &mut servers).await {
            Ok(ranges) => ranges,
            Err(refusal) => return refusal,
        };
        let mut refused = None;
        for (_, _, address) in &ranges {
            if !servers.contains_key(address) {
                match shared.connect(address).await {
                    Ok(server) => {
                        servers.insert(address.clone(), server);
                    }
                    Err(refusal) => refused = Some(refusal.cause().to_owned()),
                }
            }
        }
        servers.retain(|address, server| {
            let is_primary = ranges.iter().any(|(.., primary)| primary == address);
            if !is_primary {
                server.mark_broken();
            }
            is_primary
        });
        let cluster = layout(&ranges, &servers, refused);
        let lacks = cluster.lacks.is_some();
        show(shared, cluster);
        let interval = if lacks {
            LOOK_INTERVAL_LACKING
        } else {
            LOOK_INTERVAL
        };
        tokio::select! {
            () = tokio::time::sleep(interval) => {}
            () = shared.nudge.notified() => tokio::time::sleep(LOOK_PAUSE).await,
            () = one_breaks(&servers) => {}
        }
    }
}

/// Where the slots are, as the first server that answers says.
async fn look(
    shared: &Arc<Shared>,
    seeds: &[Address],
    servers: &mut HashMap<Address, Arc<Server>>,
) -> Result<Vec<Range>, Refusal> {
    let mut cmd = redis::cmd("CLUSTER");
    cmd.arg("SLOTS");
    for server in servers.values() {
        match server.ask(&cmd).await.map(|value| read(&value, server)) {
            Ok(ranges) if !ranges.is_empty() => return Ok(ranges),
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, server = %server.address, "CLUSTER SLOTS"),
        }
    }
    let mut last = Refusal::Unreachable("no node of the cluster answers".into());
    for seed in seeds {
        if servers.contains_key(seed) {
            continue;
        }
        match shared.connect(seed).await {
            Ok(server) if !server.is_cluster => {
                server.mark_broken();
                last = Refusal::Unfit(format!("{seed} is not part of a cluster"));
            }
            Ok(server) => {
                let answer = server.ask(&cmd).await;
                let ranges = answer
                    .map(|value| read(&value, &server))
                    .unwrap_or_default();
                servers.insert(seed.clone(), server);
                if !ranges.is_empty() {
                    return Ok(ranges);
                }
                last = Refusal::Unreachable("the cluster has given out no slots yet".into());
            }
            Err(refusal) => last = refusal,
        }
    }
    Err(last)
}

/// `[[first, last, [host, port, ..], replicas..], ..]`
fn read(value: &Value, server: &Server) -> Vec<Range> {
    let Value::Array(ranges) = value else {
        return Vec::new();
    };
    let range = |range: &Value| {
        let Value::Array(parts) = range else {
            return None;
        };
        let [
            Value::Int(first),
            Value::Int(last),
            Value::Array(primary),
            ..,
        ] = parts.as_slice()
        else {
            return None;
        };
        let [host, Value::Int(port), ..] = primary.as_slice() else {
            return None;
        };
        // A node that does not know its own name says nothing or "?": it is the one that was asked.
        let host = match host {
            Value::BulkString(host) => String::from_utf8(host.clone()).ok(),
            Value::SimpleString(host) => Some(host.clone()),
            _ => None,
        };
        let host = host
            .filter(|host| !host.is_empty() && host != "?")
            .unwrap_or_else(|| server.address.host.clone());
        let slots = |slot: &i64| {
            u16::try_from(*slot)
                .ok()
                .filter(|slot| usize::from(*slot) < SLOTS)
        };
        let port = u16::try_from(*port).ok()?;
        Some((slots(first)?, slots(last)?, Address { host, port }))
    };
    ranges.iter().filter_map(range).collect()
}

fn layout(
    ranges: &[Range],
    servers: &HashMap<Address, Arc<Server>>,
    refused: Option<String>,
) -> Cluster {
    let mut table = Box::new([NOBODY; SLOTS]);
    let mut list: Vec<Arc<Server>> = Vec::new();
    for (first, last, address) in ranges {
        let Some(server) = servers.get(address) else {
            continue;
        };
        let index = list.iter().position(|one| one.id == server.id);
        let index = index.unwrap_or_else(|| {
            list.push(Arc::clone(server));
            list.len() - 1
        });
        for slot in *first..=*last {
            table[usize::from(slot)] = index as u16;
        }
    }
    let missing = table.iter().filter(|index| **index == NOBODY).count();
    let lacks = (missing > 0).then(|| {
        let cause = refused.unwrap_or_else(|| "nobody has them".into());
        format!("{missing} of {SLOTS} slots cannot be reached: {cause}").into()
    });
    Cluster {
        servers: list,
        table,
        lacks,
    }
}

/// Shows it, if it differs from what is shown.
fn show(shared: &Arc<Shared>, cluster: Cluster) {
    if let Routes::Many(shown) = shared.routes() {
        let ids = |cluster: &Cluster| -> Vec<u64> {
            cluster.servers.iter().map(|server| server.id).collect()
        };
        if ids(&shown) == ids(&cluster)
            && shown.table == cluster.table
            && shown.lacks == cluster.lacks
        {
            return;
        }
    }
    shared.show(Routes::Many(Arc::new(cluster)));
}

async fn one_breaks(servers: &HashMap<Address, Arc<Server>>) {
    let waiting = servers.values().map(|server| Box::pin(server.broken()));
    let mut waiting: Vec<_> = waiting.collect();
    std::future::poll_fn(|context| {
        for one in &mut waiting {
            if one.as_mut().poll(context).is_ready() {
                return std::task::Poll::Ready(());
            }
        }
        std::task::Poll::Pending
    })
    .await;
}
