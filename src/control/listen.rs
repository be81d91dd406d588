//! The file of the control socket: made for its owner alone, and removed at the end.

use std::fs::{self, Permissions};
use std::io;
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
    if let Ok(there) = fs::symlink_metadata(path) {
        let in_use = |why: &str| io::Error::new(io::ErrorKind::AddrInUse, why);
        if !there.file_type().is_socket() {
            return Err(in_use("a file that is no socket has this name"));
        }
        match StdUnixStream::connect(path) {
            Ok(_) => return Err(in_use("another server answers there")),
            Err(_) => fs::remove_file(path)?,
        }
    }
    let listener = UnixListener::bind(path)?;
    let socket = Socket {
        listener,
        path: path.to_owned(),
    };
    fs::set_permissions(path, Permissions::from_mode(MODE))?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_a_killed_server_left_is_replaced_and_nothing_else() {
        let folder = std::env::temp_dir().join(format!("fanfare-{}", uuid::Uuid::new_v4()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("control.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
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
