//! The end of the server: connections are told and closed, then the parts go in the reverse of the order
//! in which they were built.

use std::thread::JoinHandle;
use std::time::Duration;

use super::App;
use super::reload::Reload;
use crate::clock::millis;
use crate::event_log::{Data, Kind};
use crate::limits::CLOSE_TIMEOUT_MS;
use crate::worker::mailbox::Control;

/// How often it is looked whether the workers still live.
const WORKER_CHECK: Duration = Duration::from_secs(1);
/// How often a stop looks whether the workers have ended.
const DRAIN_POLL: Duration = Duration::from_millis(10);
/// How long closing the store may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

impl App {
    /// Ends all connections, spread over the grace period.
    pub(super) async fn drain(&self) {
        let grace_ms = millis(self.services.config().server.shutdown_grace);
        let until_ms = self.clock.now().mono_ms + grace_ms;
        for mailbox in self.router.mailboxes() {
            // A worker that has ended has nothing to drain.
            let _ = mailbox.control(Control::Drain { until_ms });
        }
        while self.workers.iter().any(|worker| !worker.is_finished()) {
            if self.clock.now().mono_ms > until_ms + CLOSE_TIMEOUT_MS {
                tracing::warn!(sockets = self.router.load(), "the grace period is over");
                return;
            }
            tokio::time::sleep(DRAIN_POLL).await;
        }
    }

    /// Stops what still runs: workers, broker and store, console, metrics, event log.
    pub(super) async fn end(self, reload: Reload) {
        for mailbox in self.router.mailboxes() {
            let _ = mailbox.control(Control::Stop);
        }
        for worker in self.workers {
            // A worker that is stuck is left behind: the process ends all the same.
            for _ in 0..100 {
                if worker.is_finished() {
                    break;
                }
                tokio::time::sleep(DRAIN_POLL).await;
            }
            if worker.is_finished() && worker.join().is_err() {
                tracing::error!("a worker panicked");
            }
        }
        let closed = tokio::time::timeout(CLOSE_TIMEOUT, async {
            self.services.peers.leave().await;
            self.backend.broker().close().await?;
            self.backend.store().close().await
        });
        match closed.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "the store did not close well"),
            Err(_) => tracing::error!("the store did not close in time"),
        }
        self.exporter.finish().await;
        drop(reload);
        self.event_log.record(
            Kind::Server,
            &Data {
                message: Some("stopped"),
                ..Data::default()
            },
        );
        drop(self.sampler);
        self.metrics.stop();
        tracing::info!("stopped");
    }
}

/// Waits until a worker has ended, which none does by itself. Its connections are gone then, and
/// what is left would go on accepting for it: better that the process is started again.
pub(super) async fn one_ends(workers: &[JoinHandle<()>]) {
    while !workers.iter().any(JoinHandle::is_finished) {
        tokio::time::sleep(WORKER_CHECK).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_end_of_a_worker_is_noticed() {
        let (lives, dies) = (std::sync::mpsc::channel::<()>(), std::thread::spawn(|| {}));
        let worker = std::thread::spawn(move || {
            // Until the test is over.
            let _ = lives.1.recv();
        });
        let mut workers = vec![worker];
        let patience = Duration::from_secs(60);
        assert!(
            tokio::time::timeout(patience, one_ends(&workers))
                .await
                .is_err()
        );
        while !dies.is_finished() {
            std::thread::yield_now();
        }
        workers.push(dies);
        assert!(
            tokio::time::timeout(patience, one_ends(&workers))
                .await
                .is_ok()
        );
    }
}
