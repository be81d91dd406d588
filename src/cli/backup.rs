//! `fanfare backup` and `fanfare restore`: a copy of everything the embedded store has, and back.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::Args;
use fanfare::auth::keys;
use fanfare::broker::embedded::copy::{self, Extra, Manifest, Restore as Restoring};
use fanfare::broker::embedded::{FILE_NAME, OpenError};
use fanfare::clock::Clock;
use fanfare::config::{self, Config, Sources};
use fanfare::progress::Progress;
use hyper::Method;
use serde_json::json;

use super::Failure;
use super::operator::{self, Operator};

#[derive(Debug, Args)]
#[command(after_help = "\
The backup holds everything that was acknowledged before it began, as of one moment, while the
server goes on; without a running server the database is read from data_dir. It holds the generated
signing key, too: keep it as safe as data_dir itself. `fanfare restore --verify FILE` proves it.")]
pub struct Backup {
    /// The file to write, for its owner alone; - is stdout
    file: PathBuf,

    /// Replace the file if there is one
    #[arg(long)]
    force: bool,
}

impl Backup {
    pub fn run(&self, sources: &Sources) -> Result<(), Failure> {
        let config = config::load(sources)?;
        if self.file == Path::new("-") {
            write(&config, &mut io::stdout().lock())?;
            return Ok(());
        }
        if self.file.exists() && !self.force {
            let text = format!("{} exists; --force replaces it", self.file.display());
            return Err(Failure::Other(text.into()));
        }
        let mut draft = self.file.clone().into_os_string();
        draft.push(".partial");
        let draft = PathBuf::from(draft);
        let written = self.write(&config, &draft);
        let manifest = match written {
            Ok(manifest) => manifest,
            Err(failure) => {
                let _ = fs::remove_file(&draft);
                return Err(failure);
            }
        };
        let bytes = fs::metadata(&self.file)?.len();
        writeln!(
            io::stderr(),
            "{}: {} rows of {}, {}",
            self.file.display(),
            manifest.rows,
            manifest.created_at,
            bytesize::ByteSize(bytes)
        )?;
        Ok(())
    }

    /// Writes the draft, proves it, and gives it its name.
    fn write(&self, config: &Config, draft: &Path) -> Result<Manifest, Failure> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(draft)
            .map_err(at(draft))?;
        let mut out = BufWriter::new(file);
        write(config, &mut out)?;
        let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        let mut progress = Progress::new();
        progress.begin("proving the backup:");
        let manifest = copy::verify(draft, |done, all| percent(&mut progress, done, all))
            .map_err(|error| Failure::Other(error.into()))?;
        fs::rename(draft, &self.file).map_err(at(&self.file))?;
        let folder = self
            .file
            .parent()
            .filter(|path| !path.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()?;
        Ok(manifest)
    }
}

/// From the running server, else from the database itself.
fn write(config: &Config, out: &mut impl Write) -> Result<(), Failure> {
    let mut progress = Progress::new();
    progress.begin("backup:");
    let asked = operator::socket(config).and_then(|socket| Operator::to(&socket));
    if let Ok(mut server) = asked {
        let mut bytes = 0;
        server.stream(Method::POST, "/control/backup", |data| {
            bytes += data.len() as u64;
            progress.say(format_args!("{}", bytesize::ByteSize(bytes)));
            out.write_all(data)
        })?;
        out.flush()?;
        return Ok(());
    }
    let secret = config.data_dir.join(keys::FILE_NAME);
    let extras: Vec<Extra> = match fs::read(&secret) {
        Ok(bytes) if config.auth.secret.is_none() => vec![Extra {
            name: keys::FILE_NAME,
            bytes,
        }],
        Ok(_) => Vec::new(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(at(&secret)(error)),
    };
    let path = config.data_dir.join(FILE_NAME);
    let dumped = copy::dump_file(&path, &extras, &Clock::system(), out, &mut |done, all| {
        percent(&mut progress, done, all);
    });
    match (dumped, asked) {
        (Ok(_), _) => Ok(()),
        // A server has the database, and why it cannot be asked is what matters.
        (Err(copy::BackupError::Open(OpenError::InUse { .. })), Err(unreachable)) => {
            Err(unreachable)
        }
        (Err(error), _) => Err(Failure::Other(error.into())),
    }
}

#[derive(Debug, Args)]
#[command(after_help = "\
The server must not be running. The backup is proven first, and what is in data_dir stays as it is
until the new database has been opened once. What happened after the backup is undone: clients are
told that their position is of another epoch, tokens revoked since are good again until they end.")]
pub struct Restore {
    /// What `fanfare backup` wrote
    file: PathBuf,

    /// Put the database that is there aside (it gets another name)
    #[arg(long)]
    replace: bool,

    /// Only prove the backup: read it to its end and change nothing
    #[arg(long, conflicts_with = "replace")]
    verify: bool,

    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

impl Restore {
    pub fn run(&self, sources: &Sources) -> Result<(), Failure> {
        let config = config::load(sources)?;
        let mut progress = Progress::new();
        let mut out = io::stdout().lock();
        if self.verify {
            progress.begin("reading:");
            let manifest = copy::verify(&self.file, |done, all| percent(&mut progress, done, all))
                .map_err(|error| Failure::Other(error.into()))?;
            drop(progress);
            if self.json {
                writeln!(out, "{}", json!({ "ok": true, "backup": manifest }))?;
            } else {
                let (rows, at) = (manifest.rows, &manifest.created_at);
                writeln!(out, "the backup is whole: {rows} rows of {at}")?;
            }
            return Ok(());
        }
        progress.begin("restoring:");
        let restoring = Restoring {
            backup: &self.file,
            data_dir: &config.data_dir,
            replace: self.replace,
            extras: &[keys::FILE_NAME],
        };
        let restored = restoring
            .run(&Clock::system(), |done, all| {
                percent(&mut progress, done, all);
            })
            .map_err(|error| Failure::Other(error.into()))?;
        drop(progress);
        let show = |path: &PathBuf| path.display().to_string();
        if self.json {
            let answer = json!({
                "ok": true,
                "backup": restored.manifest,
                "database": show(&restored.database),
                "aside": restored.aside.iter().map(show).collect::<Vec<_>>(),
                "files": restored.extras.iter().map(show).collect::<Vec<_>>(),
            });
            writeln!(out, "{answer}")?;
            return Ok(());
        }
        let (rows, at) = (restored.manifest.rows, &restored.manifest.created_at);
        writeln!(out, "{}: {rows} rows of {at}", show(&restored.database))?;
        for path in &restored.extras {
            writeln!(out, "{}: restored", show(path))?;
        }
        for path in &restored.aside {
            writeln!(out, "{}: what was there before", show(path))?;
        }
        Ok(())
    }
}

fn percent(progress: &mut Progress, done: u64, all: u64) {
    progress.say(format_args!("{done} of {all} rows"));
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> Failure {
    let path = path.display().to_string();
    move |error| Failure::Other(format!("{path}: {error}").into())
}
