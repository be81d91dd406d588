//! The file of the control socket: made for its owner alone, and removed at the end.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixStream};

/// Owner and group; the folder usually keeps the group out.
const MODE: u32 = 0o660;

/// A bound control socket. Dropping it removes its file.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    path: PathBuf,
}

impl Socket {
    pub(super) async fn accept(&self) -> io::Result<UnixStream> {
        let (stream, _) = self.listener.accept().await?;
        Ok(stream)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Binds the socket at `path`. A socket that nobody listens to is what a killed server left, and is
/// replaced. Needs a runtime.
///
/// # Errors
/// [`io::ErrorKind::AddrInUse`] if another process answers there, or if it is no socket.
pub fn bind(path: &Path) -> io::Result<Socket> {
    let (folder, name) = split(path)?;
    let short = in_folder(&folder, name);
    if let Ok(there) = fs::symlink_metadata(path) {
        let in_use = |why: &str| io::Error::new(io::ErrorKind::AddrInUse, why);
        if !there.file_type().is_socket() {
            return Err(in_use("a file that is no socket has this name"));
        }
        if StdUnixStream::connect(&short).is_ok() {
            return Err(in_use("another server answers there"));
        }
    }
    // Nobody can connect before it is for those it is meant for.
    let mut unfinished = name.to_os_string();
    unfinished.push(".new");
    let unfinished = in_folder(&folder, &unfinished);
    let _ = fs::remove_file(&unfinished);
    let listener = UnixListener::bind(&unfinished)?;
    fs::set_permissions(&unfinished, Permissions::from_mode(MODE))?;
    fs::rename(&unfinished, &short)?;
    Ok(Socket {
        listener,
        path: path.to_owned(),
    })
}

/// Connects to the socket at `path`. Needs a runtime.
///
/// # Errors
/// What the system says.
pub async fn connect(path: &Path) -> io::Result<UnixStream> {
    let (folder, name) = split(path)?;
    UnixStream::connect(in_folder(&folder, name)).await
}

fn split(path: &Path) -> io::Result<(File, &OsStr)> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let folder = path.parent().filter(|path| !path.as_os_str().is_empty());
    Ok((File::open(folder.unwrap_or(Path::new(".")))?, name))
}

/// A way to a file that a socket address has room for (107 bytes), however deep its folder lies. Good for
/// as long as the folder is open.
fn in_folder(folder: &File, name: &OsStr) -> PathBuf {
    Path::new("/proc/self/fd")
        .join(folder.as_raw_fd().to_string())
        .join(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_a_killed_server_left_is_replaced_and_nothing_else() {
        let folder = std::env::temp_dir()
            .join(format!("fanfare-{}", uuid::Uuid::new_v4()))
            .join("deep/".repeat(40));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("control.sock");
        let (parent, name) = split(&path).unwrap();
        let short = in_folder(&parent, name);
        drop(std::os::unix::net::UnixListener::bind(short).unwrap());
        assert!(path.exists(), "left behind");
        let socket = bind(&path).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, MODE);
        assert_eq!(
            bind(&path).unwrap_err().kind(),
            io::ErrorKind::AddrInUse,
            "somebody answers"
        );
        drop(socket);
        assert!(!path.exists());
        fs::write(&path, "precious").unwrap();
        assert_eq!(bind(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert_eq!(fs::read(&path).unwrap(), b"precious");
        fs::remove_dir_all(&folder).unwrap();
    }
}
