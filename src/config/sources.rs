//! Where settings come from: the file, the environment and the flags, each read into a [`Layer`].

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::keys;
use super::mistake::Mistake;
use super::raw::{self, Layer, Origin, Value};

/// A configuration or secret file is read no further than this.
const FILE_BYTES: u64 = 1024 * 1024;

/// The predecessor's environment variables, and the settings that they are. Those that end in `_PORT`
/// change the port and keep the address.
const PREDECESSOR: [(&str, &str); 6] = [
    ("NEXTAUTH_SECRET", "auth.secret"),
    ("NEXTAUTH_SECRET_FILE", "auth.secret_file"),
    ("WS_PORT", "server.listen"),
    ("METRICS_PORT", "metrics.listen"),
    ("REDIS_URL", "broker.redis.url"),
    ("REDIS_URL_FILE", "broker.redis.url_file"),
];

/// Ours, and not a setting: what the diagnostics show has to be known before there is a configuration.
const NO_SETTING: &str = "FANFARE_LOG";

/// Everything that a configuration is made of. Nothing else is asked, so that a test can tell it all.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// `--dev`
    pub dev: bool,
    /// `--config`: this file and no other; it has to exist.
    pub file: Option<PathBuf>,
    /// Without `file`: the first of these that exists.
    pub search: Vec<PathBuf>,
    /// Where the service manager puts credentials (`$CREDENTIALS_DIRECTORY`).
    pub credentials: Option<PathBuf>,
    /// The environment; what is not Fanfare's is ignored.
    pub environment: Vec<(OsString, OsString)>,
    /// What the flags set, in their order.
    pub flags: Vec<Flag>,
}

/// A setting from the command line.
#[derive(Debug, Clone)]
pub struct Flag {
    /// With its dashes: `--listen`.
    pub name: &'static str,
    /// The setting: `server.listen`.
    pub key: String,
    /// Its value; `None`: there was no `=`.
    pub value: Option<String>,
}

impl Sources {
    /// What a process sees: `./config.toml`, else `/etc/fanfare/config.toml`, and its environment.
    pub fn of_process() -> Self {
        Self {
            search: vec!["config.toml".into(), "/etc/fanfare/config.toml".into()],
            credentials: std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from),
            environment: std::env::vars_os().collect(),
            ..Self::default()
        }
    }

    /// The file that is to be read, if any.
    pub fn chosen_file(&self) -> Option<&Path> {
        let found = || self.search.iter().find(|path| path.exists());
        self.file.as_ref().or_else(found).map(PathBuf::as_path)
    }

    pub(super) fn dev_layer(&self) -> Layer {
        let mut layer = Layer::default();
        if self.dev {
            layer.put("auth.wallet_proof", Value::Text("none".into()), Origin::Dev);
            layer.put("server.test_page", Value::Boolean(true), Origin::Dev);
            let level = Value::Text("info,fanfare=debug".into());
            layer.put("logs.level", level, Origin::Dev);
        }
        layer
    }

    pub(super) fn file_layer(&self) -> (Layer, Vec<Mistake>) {
        let Some(path) = self.chosen_file() else {
            return (Layer::default(), Vec::new());
        };
        match read_text(path) {
            Ok(text) => Layer::from_toml(&text, &raw::lines_of(path)),
            Err(error) => {
                let name = match self.file {
                    Some(_) => "--config",
                    None => "configuration file",
                };
                let mut mistake = Mistake::new(name, format!("cannot be read: {error}"))
                    .accepting("a readable file of TOML");
                mistake.value = Some(path.display().to_string());
                (Layer::default(), vec![mistake])
            }
        }
    }

    /// The credentials that are named like a secret: `auth.secret`, or `file_auth.secret`, as systemd names
    /// what comes from a folder. They are read as the files that `auth.secret_file` and its like name.
    pub(super) fn credential_layer(&self, defaults: &Layer) -> Layer {
        let mut layer = Layer::default();
        let Some(folder) = &self.credentials else {
            return layer;
        };
        for key in defaults.values.keys() {
            let secret = match key.strip_suffix("_file") {
                Some(secret) => secret,
                None if key.ends_with(".tls.cert") || key.ends_with(".tls.key") => key,
                None => continue,
            };
            let names = [secret.to_owned(), format!("file_{secret}")];
            let found = names.into_iter().find(|name| folder.join(name).is_file());
            if let Some(name) = found {
                let path = folder.join(&name).display().to_string();
                layer.put(key, Value::Text(path), Origin::Credential(name));
            }
        }
        layer
    }

    /// The predecessor's variables; `listener` is the address that weaker layers chose for a key.
    pub(super) fn predecessor_layer(
        &self,
        listener: impl Fn(&str) -> Option<SocketAddr>,
    ) -> (Layer, Vec<Mistake>) {
        let (mut layer, mut mistakes) = (Layer::default(), Vec::new());
        for (name, key) in PREDECESSOR {
            let origin = Origin::Predecessor(name);
            // Later entries win, as in a shell. Empty is unset: deployments pass variables on unfilled.
            let mut given = self.environment.iter().rev();
            let Some(value) = given
                .find(|(given, _)| given == name)
                .map(|(_, value)| value)
            else {
                continue;
            };
            match text(value) {
                _ if value.is_empty() => {}
                None => mistakes.push(not_text(key, &origin)),
                Some(port) if name.ends_with("_PORT") => match port.trim().parse::<u16>() {
                    Ok(port) => {
                        // Without an address the file's value is a mistake, told as the file's.
                        if let Some(mut listen) = listener(key) {
                            listen.set_port(port);
                            layer.put(key, Value::Text(listen.to_string()), origin);
                        }
                    }
                    Err(_) => {
                        let mut mistake = Mistake::new(key, "is not a port").at(&origin);
                        mistake.value = Some(Value::Text(port.to_owned()).to_string());
                        mistakes.push(mistake.accepting("a number from 0 to 65535"));
                    }
                },
                Some(text) => layer.put(key, Value::Text(text.to_owned()), origin),
            }
        }
        (layer, mistakes)
    }

    pub(super) fn environment_layer(&self) -> (Layer, Vec<Mistake>) {
        let (mut layer, mut mistakes) = (Layer::default(), Vec::new());
        for (name, value) in &self.environment {
            let name = name.to_string_lossy();
            let Some(rest) = name.strip_prefix("FANFARE_").filter(|_| name != NO_SETTING) else {
                continue;
            };
            let key = keys::key_of_variable(rest);
            let origin = Origin::Environment(name.to_string());
            match text(value) {
                Some(text) => layer.put(key, Value::Text(text.to_owned()), origin),
                None => mistakes.push(not_text(&key, &origin)),
            }
        }
        (layer, mistakes)
    }

    pub(super) fn flag_layer(&self) -> (Layer, Vec<Mistake>) {
        let (mut layer, mut mistakes) = (Layer::default(), Vec::new());
        for flag in &self.flags {
            let origin = Origin::Flag(flag.name);
            match &flag.value {
                _ if keys::is_credential(&flag.key) => mistakes.push(
                    Mistake::new(
                        &flag.key,
                        "is a secret, and everybody on the machine sees flags",
                    )
                    .at(&origin)
                    .accepting(format!(
                        "the configuration file, {}, or a file that {}_file names",
                        keys::variable(&flag.key),
                        flag.key
                    )),
                ),
                Some(value) => layer.put(&flag.key, Value::Text(value.clone()), origin),
                None => mistakes.push(
                    Mistake::new(&flag.key, "there is no value")
                        .at(&origin)
                        .accepting("KEY=VALUE, such as limits.queue_bytes=2MiB"),
                ),
            }
        }
        (layer, mistakes)
    }
}

/// The content of a small file.
pub(super) fn read_bytes(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?
        .take(FILE_BYTES + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            "the file is larger than 1 MiB",
        ));
    }
    Ok(bytes)
}

fn read_text(path: &Path) -> io::Result<String> {
    String::from_utf8(read_bytes(path)?)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "the file is not UTF-8"))
}

fn text(value: &OsStr) -> Option<&str> {
    value.to_str()
}

fn not_text(key: &str, origin: &Origin) -> Mistake {
    Mistake::new(key, "is not text")
        .at(origin)
        .accepting("UTF-8")
}
