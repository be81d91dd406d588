//! The commands' end.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::{NAME, Request, open_folder, short_path};

/// For an answer: a reload may have to read files from slow disks.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// Asks the server of this `data_dir`.
///
/// # Errors
/// `NotFound` and `ConnectionRefused`: none runs there. `PermissionDenied`: it is somebody else's.
pub fn ask(data_dir: &Path, request: &Request) -> io::Result<Value> {
    let folder = open_folder(data_dir)?;
    let mut stream = UnixStream::connect(short_path(&folder, NAME))?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer)?;
    if answer.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(serde_json::from_str(&answer)?)
}
