//! Connects, watches, and connects again, for ever.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::address::{Address, Finding};
use super::link::{Routes, Shared};
use super::server::Refusal;
use super::{cluster, sentinel};

/// The first pause before connecting again; doubled until [`PAUSE_MAX`], and jittered.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Does so.
pub(super) async fn keep_connected(shared: Arc<Shared>) {
    let mut pause = Pause::default();
    loop {
        let outcome = match &shared.target.finding {
            Finding::Given(address) => one(&shared, address, &mut pause).await,
            Finding::Sentinels { sentinels, master } => {
                sentinel::follow(&shared, sentinels, master, &mut pause).await
            }
            Finding::Cluster(seeds) => cluster::follow(&shared, seeds, HashMap::new()).await,
        };
        let cause: Arc<str> = outcome.cause().into();
        tracing::debug!(%cause, "no connection to Redis");
        shared.show(Routes::Down(cause, matches!(outcome, Refusal::Unfit(_))));
        pause.wait().await;
    }
}

/// Keeps to one server until it breaks.
async fn one(shared: &Arc<Shared>, address: &Address, pause: &mut Pause) -> Refusal {
    let server = match shared.connect(address).await {
        Ok(server) => server,
        Err(refusal) => return refusal,
    };
    pause.reset();
    if server.is_cluster {
        let seeds = [address.clone()];
        let known = HashMap::from([(address.clone(), server)]);
        return cluster::follow(shared, &seeds, known).await;
    }
    shared.show(Routes::One(Arc::clone(&server)));
    server.broken().await;
    Refusal::Unreachable(format!("the connection to {address} was lost"))
}

/// What is waited before the next attempt.
#[derive(Default)]
pub(super) struct Pause(u32);

impl Pause {
    pub(super) fn reset(&mut self) {
        self.0 = 0;
    }

    pub(super) async fn wait(&mut self) {
        let longest = (PAUSE_MIN * 2u32.saturating_pow(self.0)).min(PAUSE_MAX);
        self.0 = (self.0 + 1).min(8);
        // Half of it at least: many nodes must not come at the same moment.
        let dice = (uuid::Uuid::new_v4().as_u128() & 0xffff) as u32;
        tokio::time::sleep(longest / 2 + longest / 2 * dice / 0x1_0000).await;
    }
}
