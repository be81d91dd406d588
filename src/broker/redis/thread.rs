//! The thread `fanfare-redis`, on which connections are looked after.

use std::sync::Mutex;
use std::thread::JoinHandle;

use tokio::runtime::Handle;
use tokio::sync::watch;

use super::address::Target;
use super::server::Refusal;
use super::{OpenError, lock};

/// It ends when this is dropped.
pub(super) struct Thread {
    handle: Handle,
    stop: watch::Sender<bool>,
    join: Mutex<Option<JoinHandle<()>>>,
}

impl Thread {
    /// Starts it, and waits until `begin` has come to an end on it. What it spawned lives on.
    pub(super) fn start<T, F>(
        begin: impl FnOnce() -> F + Send + 'static,
    ) -> Result<(T, Self), OpenError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Refusal>>,
    {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(OpenError::Thread)?;
        let handle = runtime.handle().clone();
        let (stop, mut stopped) = watch::channel(false);
        let (begun_tx, begun) = std::sync::mpsc::sync_channel(1);
        let join = std::thread::Builder::new()
            .name("fanfare-redis".into())
            .spawn(move || {
                runtime.block_on(async {
                    let outcome = begin().await;
                    let is_up = outcome.is_ok();
                    if begun_tx.send(outcome).is_ok() && is_up {
                        let _ = stopped.wait_for(|stop| *stop).await;
                    }
                });
                // Whatever still waits for a server is dropped with the runtime.
                runtime.shutdown_background();
            })
            .map_err(OpenError::Thread)?;
        let outcome = begun.recv();
        let outcome = outcome.map_err(|error| OpenError::Thread(std::io::Error::other(error)))?;
        let begun = outcome.map_err(|refusal| match refusal {
            Refusal::Unreachable(cause) => OpenError::Unreachable(cause),
            Refusal::Unfit(cause) => OpenError::Unfit(cause),
            Refusal::Unfinished => OpenError::Unfinished,
        })?;
        let thread = Self {
            handle,
            stop,
            join: Mutex::new(Some(join)),
        };
        Ok((begun, thread))
    }

    /// Where its tasks run.
    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        let join = lock(&self.join).take();
        // The last reference may be the sink's, and be dropped on that thread itself.
        if let Some(join) = join.filter(|it| it.thread().id() != std::thread::current().id()) {
            let _ = join.join();
        }
    }
}

/// Where everything is kept, and where events go through if that is another.
pub(super) fn targets(
    url: &str,
    pubsub_url: Option<&str>,
    authorities: Option<&Vec<u8>>,
) -> Result<(Target, Option<Target>), OpenError> {
    let target = |url: &str| Target::parse(url, authorities.cloned()).map_err(OpenError::Url);
    Ok((target(url)?, pubsub_url.map(target).transpose()?))
}
