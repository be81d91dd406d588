//! What the service manager is told while the server runs: a line of status, and that every worker still
//! takes its turns. A worker that is stuck is silence, and after that comes a new process.

use std::convert::Infallible;

use super::App;
use crate::supervisor::Pulse;

impl App {
    /// Tells it, for ever.
    pub(super) async fn watch(&self) -> Infallible {
        let every = Pulse::every(self.supervisor.watchdog());
        let mut pulse = Pulse::new(self.turns());
        let mut said = self.status();
        loop {
            for mailbox in self.router.mailboxes() {
                mailbox.wake();
            }
            tokio::time::sleep(every).await;
            match &*pulse.stuck(self.turns()) {
                [] => self.supervisor.alive(),
                stuck => {
                    tracing::error!(workers = ?stuck, "no turn within {every:?}: a worker is stuck")
                }
            }
            let status = self.status();
            if status != said {
                self.supervisor.status(&status);
                said = status;
            }
        }
    }

    /// For `systemctl status`.
    pub(super) fn status(&self) -> String {
        let config = self.services.config();
        let connections = self.services.admission.connections();
        let s = if connections == 1 { "" } else { "s" };
        let (address, workers) = (self.address, config.server.workers);
        format!("serving {address} with {workers} workers: {connections} WebSocket{s}")
    }

    fn turns(&self) -> Vec<u64> {
        let workers = self.services.counters.workers.iter();
        workers.map(|worker| worker.turns.value()).collect()
    }
}
