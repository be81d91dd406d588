//! A folder that goes when the measurement does, also when that is interrupted.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, Once, PoisonError, mpsc};

use tokio::signal::unix::{SignalKind, signal};

/// What an interrupt has to remove.
static FOLDERS: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());
static WATCHED: Once = Once::new();
/// 128 and SIGINT's number, as shells have it.
const EXIT_INTERRUPTED: i32 = 130;

/// A folder for us alone. Dropping it removes it and what is in it.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// Makes one in `parent`.
    ///
    /// # Errors
    /// When that cannot be written to.
    pub fn new(parent: &Path) -> io::Result<Self> {
        WATCHED.call_once(|| {
            let (installed, until_installed) = mpsc::channel();
            // Without the thread, an interrupt leaves the folder behind: no reason not to measure.
            let _ = std::thread::Builder::new()
                .name("fanfare-signal".to_owned())
                .spawn(move || remove_at_interrupt(&installed));
            let _ = until_installed.recv();
        });
        // Held until the folder is known: none is made while an interrupt removes them.
        let mut folders = folders();
        let path = parent.join(format!("fanfare-bench-{}", uuid::Uuid::new_v4()));
        DirBuilder::new().mode(0o700).create(&path)?;
        folders.push(path.clone());
        Ok(Self(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed stays; the system cleans its folder for temporary files.
        let _ = fs::remove_dir_all(&self.0);
        folders().retain(|path| *path != self.0);
    }
}

fn folders() -> MutexGuard<'static, Vec<PathBuf>> {
    FOLDERS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn remove_at_interrupt(installed: &mpsc::Sender<()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build();
    let Ok(runtime) = runtime else {
        return;
    };
    let interrupted = runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt()).ok()?;
        let mut terminate = signal(SignalKind::terminate()).ok()?;
        // Nobody listens if there was no need to wait.
        let _ = installed.send(());
        tokio::select! {
            _ = interrupt.recv() => Some(()),
            _ = terminate.recv() => Some(()),
        }
    });
    if interrupted.is_some() {
        let folders = folders();
        for path in folders.iter() {
            let _ = fs::remove_dir_all(path);
        }
        std::process::exit(EXIT_INTERRUPTED);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left() {
        let scratch = Scratch::new(&std::env::temp_dir()).unwrap();
        let path = scratch.path().to_owned();
        fs::write(path.join("file"), "text").unwrap();
        drop(scratch);
        assert!(!path.exists());
        assert!(!folders().contains(&path));
    }
}
