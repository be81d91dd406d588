//! Whose a file is that root has made for the server.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;

/// Gives `path` to the owner of `like`, as far as that is allowed: root may be who makes it, and the
/// server has to use it.
pub fn hand_over(path: &Path, like: &Path) {
    let (Ok(made), Ok(like)) = (fs::metadata(path), fs::metadata(like)) else {
        return;
    };
    if (made.uid(), made.gid()) != (like.uid(), like.gid()) {
        let _ = chown(path, Some(like.uid()), Some(like.gid()));
    }
}
