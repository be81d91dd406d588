//! The HS256 key: the configured one, or one that is generated once and kept in `data_dir`.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::config::{self, Secret};
use crate::owner::hand_over;

/// The file in `data_dir`.
pub const FILE_NAME: &str = "secret";

/// Fewer bytes are no key for HS256 (RFC 7518 section 3.2).
pub const MIN_SECRET_BYTES: usize = 32;

/// Of a generated key, before it is written as hexadecimal text.
const GENERATED_BYTES: usize = 32;

/// A larger file is not one of ours.
const MAX_FILE_BYTES: u64 = 4096;

/// Why there is no key to sign with.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file or its folder cannot be used.
    #[error("the signing key in {path}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file holds something else.
    #[error(
        "{path} holds no key of {MIN_SECRET_BYTES} bytes or more; restore it, or delete it to have a new one (all tokens become invalid)"
    )]
    TooShort {
        /// Which file.
        path: PathBuf,
    },
    /// There is none yet.
    #[error("there is no signing key in {path}: start the server once, or name its data_dir")]
    Missing {
        /// Which file.
        path: PathBuf,
    },
    /// The system has no randomness to give.
    #[error("no random bytes for a new signing key")]
    NoRandomness,
}

/// The key to sign and verify with: that of the configuration, else the one in `data_dir`, which is
/// made now if there is none. Processes that start at once all get the same.
pub fn secret(auth: &config::Auth, data_dir: &Path) -> Result<Secret, SecretError> {
    match existing(auth, data_dir) {
        Err(SecretError::Missing { path }) => {
            create(data_dir, &path)?;
            // Read back, because another process may have been first.
            existing(auth, data_dir)
        }
        found => found,
    }
}

/// The key that the server of this configuration signs with.
///
/// # Errors
/// [`SecretError::Missing`] if it has never been started.
pub fn existing(auth: &config::Auth, data_dir: &Path) -> Result<Secret, SecretError> {
    if let Some(configured) = &auth.secret {
        return Ok(configured.clone());
    }
    let path = data_dir.join(FILE_NAME);
    read(&path)?.ok_or(SecretError::Missing { path })
}

/// The key in the file; `None` if there is no file.
fn read(path: &Path) -> Result<Option<Secret>, SecretError> {
    let failed = |source| SecretError::Io {
        path: path.to_owned(),
        source,
    };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mode = file.metadata().map_err(failed)?.permissions().mode();
    if mode & 0o077 != 0 {
        tracing::warn!(
            path = %path.display(),
            mode = format_args!("{:o}", mode & 0o777),
            "the signing key can be read by others; run chmod 600 on it"
        );
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    let key = bytes.trim_ascii();
    if key.len() < MIN_SECRET_BYTES {
        return Err(SecretError::TooShort {
            path: path.to_owned(),
        });
    }
    Ok(Some(Secret::new(key)))
}

/// Puts a new key at `path`, whole and on disk, unless one is there.
fn create(data_dir: &Path, path: &Path) -> Result<(), SecretError> {
    let failed = |source| SecretError::Io {
        path: path.to_owned(),
        source,
    };
    let mut key = [0u8; GENERATED_BYTES];
    aws_lc_rs::rand::fill(&mut key).map_err(|_| SecretError::NoRandomness)?;
    let text: String = key.iter().map(|byte| format!("{byte:02x}")).collect();

    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(data_dir)
        .map_err(failed)?;
    let draft = data_dir.join(format!(".{FILE_NAME}.{}", uuid::Uuid::new_v4()));
    let written = write_draft(&draft, &text).and_then(|()| {
        hand_over(&draft, data_dir);
        // A link fails where a rename would replace: of several processes, one wins.
        match fs::hard_link(&draft, path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => File::open(data_dir)?.sync_all(),
        }
    });
    let _ = fs::remove_file(&draft);
    written.map_err(failed)
}

fn write_draft(draft: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(draft)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new() -> Self {
            let name = format!("fanfare-keys-{}", uuid::Uuid::new_v4());
            Self(std::env::temp_dir().join(name))
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn auth(secret: Option<Secret>) -> config::Auth {
        config::Auth {
            secret,
            issuer: String::new(),
            audience: String::new(),
            token_ttl: config::TokenTtl::One(std::time::Duration::ZERO),
            refresh_ttl: std::time::Duration::ZERO,
            refresh_ttl_max: std::time::Duration::from_secs(86_400),
            statement: "Sign in.".into(),
            solana_chain: "mainnet",
            ethereum_chain: 1,
            revocation_ttl: std::time::Duration::ZERO,
            refresh_grace: std::time::Duration::ZERO,
            wallet_proof: config::WalletProof::Signature,
            auto_provision: true,
            legacy_wallet_identity: false,
            previous_secret: None,
            keys: Vec::new(),
            signing_key: None,
            issuers: Vec::new(),
            api_keys: Vec::new(),
        }
    }

    #[test]
    fn the_configured_key_touches_no_disk() {
        let folder = Folder::new();
        let configured = Secret::new(*b"0123456789abcdef0123456789abcdef");
        let got = secret(&auth(Some(configured.clone())), &folder.0).unwrap();
        assert_eq!(got, configured);
        assert!(!folder.0.exists());
    }

    #[test]
    fn processes_that_start_at_once_agree_on_a_private_key() {
        let folder = Folder::new();
        let data_dir = folder.0.join("deep").join("data");
        let keys: Vec<Secret> = std::thread::scope(|scope| {
            let starts: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| secret(&auth(None), &data_dir).unwrap()))
                .collect();
            starts
                .into_iter()
                .map(|start| start.join().unwrap())
                .collect()
        });
        assert_eq!(keys[0].expose().len(), 2 * GENERATED_BYTES);
        assert!(keys.iter().all(|key| *key == keys[0]));
        assert_eq!(secret(&auth(None), &data_dir).unwrap(), keys[0]);

        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&data_dir), 0o700);
        assert_eq!(mode(&data_dir.join(FILE_NAME)), 0o600);
        // No draft is left behind.
        assert_eq!(fs::read_dir(&data_dir).unwrap().count(), 1);
    }

    #[test]
    fn a_damaged_key_is_not_replaced_silently() {
        let folder = Folder::new();
        fs::create_dir_all(&folder.0).unwrap();
        fs::write(folder.0.join(FILE_NAME), "too short\n").unwrap();
        assert!(matches!(
            secret(&auth(None), &folder.0),
            Err(SecretError::TooShort { .. })
        ));
        fs::write(folder.0.join(FILE_NAME), format!("{}\n", "k".repeat(32))).unwrap();
        assert_eq!(secret(&auth(None), &folder.0).unwrap().expose(), [b'k'; 32]);
    }
}
