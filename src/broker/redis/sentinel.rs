//! Follows the master that sentinels name.

use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, RedisResult};

use super::address::{Address, Target};
use super::connecting::Pause;
use super::link::{Routes, Shared};
use super::server::{CONNECT_TIMEOUT, Refusal};

/// How often a sentinel is asked whether the master is still the same.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Connects to the master, and returns when it broke or is not the master any more.
pub(super) async fn follow(
    shared: &Arc<Shared>,
    sentinels: &[Address],
    master: &str,
    pause: &mut Pause,
) -> Refusal {
    let Some((address, mut sentinel)) = ask_any(&shared.target, sentinels, master).await else {
        return Refusal::Unreachable(format!("no sentinel knows the master {master}"));
    };
    let server = match shared.connect(&address).await {
        Ok(server) => server,
        Err(refusal) => return refusal,
    };
    pause.reset();
    shared.show(Routes::One(Arc::clone(&server)));
    loop {
        tokio::select! {
            () = server.broken() => {
                return Refusal::Unreachable(format!("the connection to {address} was lost"));
            }
            () = tokio::time::sleep(LOOK_INTERVAL) => {}
            () = shared.nudge.notified() => {}
        }
        let now = match within(ask(&mut sentinel, master)).await {
            Some(now) => now,
            // This sentinel is gone; while none answers, the master that is there goes on.
            None => match ask_any(&shared.target, sentinels, master).await {
                Some((now, other)) => {
                    sentinel = other;
                    now
                }
                None => continue,
            },
        };
        if now != address {
            server.mark_broken();
            return Refusal::Unreachable(format!("{now} has become the master"));
        }
    }
}

/// What the first sentinel that knows it says.
pub(super) async fn ask_any(
    target: &Target,
    sentinels: &[Address],
    master: &str,
) -> Option<(Address, MultiplexedConnection)> {
    for sentinel in sentinels {
        let asking = async {
            let client = target.sentinel_client(sentinel)?;
            let config = AsyncConnectionConfig::new().set_response_timeout(None);
            let mut connection = client
                .get_multiplexed_async_connection_with_config(&config)
                .await?;
            let address = ask(&mut connection, master).await?;
            Ok((address, connection))
        };
        if let Some(found) = within(asking).await {
            return Some(found);
        }
    }
    None
}

async fn ask(sentinel: &mut MultiplexedConnection, master: &str) -> RedisResult<Address> {
    let mut cmd = redis::cmd("SENTINEL");
    cmd.arg("GET-MASTER-ADDR-BY-NAME").arg(master);
    let (host, port) = cmd.query_async(sentinel).await?;
    Ok(Address { host, port })
}

async fn within<T>(answer: impl Future<Output = RedisResult<T>>) -> Option<T> {
    match tokio::time::timeout(CONNECT_TIMEOUT, answer).await {
        Ok(Ok(value)) => Some(value),
        Ok(Err(error)) => {
            tracing::debug!(%error, "a sentinel gave no address");
            None
        }
        Err(_) => None,
    }
}
