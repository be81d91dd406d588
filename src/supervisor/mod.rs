//! The service manager that started this process, if one did (systemd): what it is told, and the sockets
//! that it hands over. Without one, all of this does nothing.

mod inherited;
mod pulse;

use std::time::Duration;

use sd_notify::NotifyState;

pub use inherited::{Inherited, NotASocket};
pub use pulse::Pulse;

/// Where the service manager listens; nowhere without one.
#[derive(Debug, Clone)]
pub struct Supervisor {
    watchdog: Option<Duration>,
}

impl Supervisor {
    /// The one of this process, as its environment names it.
    pub fn of_process() -> Self {
        Self {
            watchdog: sd_notify::watchdog_enabled(),
        }
    }

    /// How long it waits for the next [`Supervisor::alive`] before it ends the process; `None`: for ever.
    pub fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// Everything is bound and served.
    pub fn ready(&self, status: &str) {
        self.tell(&[NotifyState::Ready, NotifyState::Status(status)]);
    }

    /// The configuration is being read again, until [`Supervisor::ready`].
    pub fn reloading(&self) {
        // systemd tells old notifications from new ones by the time.
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.tell(&[NotifyState::Reloading, now]),
            Err(error) => tracing::debug!(%error, "the clock of the service manager"),
        }
    }

    /// The end has begun.
    pub fn stopping(&self, status: &str) {
        self.tell(&[NotifyState::Stopping, NotifyState::Status(status)]);
    }

    /// The line that `systemctl status` shows.
    pub fn status(&self, status: &str) {
        self.tell(&[NotifyState::Status(status)]);
    }

    /// All is well.
    pub fn alive(&self) {
        if self.watchdog.is_some() {
            self.tell(&[NotifyState::Watchdog]);
        }
    }

    /// Whoever does not listen is not waited for.
    fn tell(&self, states: &[NotifyState<'_>]) {
        if let Err(error) = sd_notify::notify(states) {
            tracing::debug!(%error, "the service manager could not be told");
        }
    }
}
