//! The end of the server: connections are told and closed, then the parts go in the reverse of the order
//! in which they were built.

use std::io;
use std::thread::JoinHandle;
use std::time::Duration;

use super::App;
use super::reload::Reload;
use crate::clock::millis;
use crate::event_log::{Data, Kind};
use crate::limits::{CLOSE_TIMEOUT_MS, DRAIN_EACH_MS, NOTICE_MAX_MS, RETURN_MS};
use crate::worker::mailbox::{Control, Farewell};

/// How often it is looked whether the workers still live.
const WORKER_CHECK: Duration = Duration::from_secs(1);
/// How often a stop looks whether the workers have ended.
const DRAIN_POLL: Duration = Duration::from_millis(10);
/// How long closing the store may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

impl App {
    /// Ends all connections, spread over the grace period; what is `accepting` goes on as long as is planned.
    pub(super) async fn drain(&self, accepting: impl Future<Output = io::Error>) {
        let grace_ms = millis(self.services.config().server.shutdown_grace);
        let now_ms = self.clock.now().mono_ms;
        let plan = Plan::of(self.router.load(), grace_ms, !self.backend.is_shared());
        self.tell_workers(|| Control::Drain(plan.farewell(now_ms)));
        // Over early if it cannot accept any more.
        let _ = tokio::time::timeout(Duration::from_millis(plan.open_ms), accepting).await;
        self.tell_workers(|| Control::Finish);
        while self.workers.iter().any(|worker| !worker.is_finished()) {
            if self.clock.now().mono_ms > now_ms + grace_ms + CLOSE_TIMEOUT_MS {
                tracing::warn!(sockets = self.router.load(), "the grace period is over");
                return;
            }
            tokio::time::sleep(DRAIN_POLL).await;
        }
    }

    fn tell_workers(&self, what: impl Fn() -> Control) {
        for mailbox in self.router.mailboxes() {
            // A worker that has ended needs no word.
            let _ = mailbox.control(what());
        }
    }

    /// Stops what still runs: workers, broker and store, console, metrics, event log.
    pub(super) async fn end(self, reload: Reload) {
        self.tell_workers(|| Control::Stop);
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

/// How a stop goes, in milliseconds from its beginning.
#[derive(Debug, PartialEq, Eq)]
struct Plan {
    /// By when the last client is told.
    told_ms: u64,
    /// How long it is open for new ones.
    open_ms: u64,
    /// When clients may come back, and over what time.
    back_ms: u64,
    spread_ms: u64,
}

impl Plan {
    /// A node that is alone serves to the end: nobody else would. Where there are others, clients and load
    /// balancers find them sooner when this one is closed.
    fn of(sockets: usize, grace_ms: u64, is_alone: bool) -> Self {
        let sockets = sockets as u64;
        // A part of the grace period is left for the closing handshakes.
        let told_ms = (sockets * DRAIN_EACH_MS).min(grace_ms / 10 * 8);
        let notice_ms = match sockets {
            0 => 0,
            _ => (grace_ms / 10).min(NOTICE_MAX_MS),
        };
        let (open_ms, back_ms) = if is_alone {
            let end_ms = told_ms.max(notice_ms);
            (end_ms, end_ms)
        } else {
            (notice_ms, 0)
        };
        Self {
            told_ms,
            open_ms,
            back_ms,
            spread_ms: sockets.clamp(*RETURN_MS.start(), *RETURN_MS.end()),
        }
    }

    fn farewell(&self, now_ms: u64) -> Farewell {
        Farewell {
            told_ms: now_ms + self.told_ms,
            back_ms: now_ms + self.back_ms,
            spread_ms: self.spread_ms,
        }
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

    #[test]
    fn a_stop_takes_the_time_that_its_sockets_need_and_no_more_than_the_grace() {
        let of = |sockets, is_alone| {
            let plan = Plan::of(sockets, 10_000, is_alone);
            (plan.told_ms, plan.open_ms, plan.back_ms, plan.spread_ms)
        };
        assert_eq!(of(0, true), (0, 0, 0, 500));
        assert_eq!(of(2, true), (100, 1_000, 1_000, 500));
        assert_eq!(of(40, true), (2_000, 2_000, 2_000, 500));
        assert_eq!(of(3_000, true), (8_000, 8_000, 8_000, 3_000));
        assert_eq!(of(40, false), (2_000, 1_000, 0, 500));
        assert_eq!(of(50_000, false), (8_000, 1_000, 0, 5_000));
        let at_once = Plan::of(50_000, 0, true);
        assert_eq!((at_once.told_ms, at_once.open_ms), (0, 0));
    }

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
