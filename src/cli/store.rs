//! `fanfare store`: the embedded database, from outside.

use std::io::{self, Write};

use bytesize::ByteSize;
use clap::{Args, Subcommand};
use fanfare::broker::embedded::FILE_NAME;
use fanfare::broker::embedded::maintenance::{self, MaintenanceError};
use fanfare::config::{self, Sources};
use fanfare::progress::Progress;
use serde::Serialize;

use super::Failure;
use super::operator::table;

#[derive(Debug, Args)]
#[command(after_help = "\
The server must not be running: it holds the database. What a running server's store does is in
`fanfare stats`. Exit code 3: the check found something.")]
pub struct Store {
    #[command(subcommand)]
    what: What,

    /// Print a JSON object
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Verify every page's checksum, and that the tables agree with each other
    Check,
    /// Rewrite the file without the gaps in it
    Compact,
    /// Rows by table, and what the file takes
    Stats,
}

impl Store {
    pub fn run(&self, sources: &Sources) -> Result<(), Failure> {
        let path = config::load(sources)?.data_dir.join(FILE_NAME);
        let shown = path.display();
        let mut out = io::stdout().lock();
        let mut progress = Progress::new();
        match self.what {
            What::Check => {
                progress.begin("checking every page and row");
                let checked = maintenance::check(&path).map_err(failed)?;
                drop(progress);
                if self.json {
                    print(&mut out, &checked)?;
                } else if checked.problems.is_empty() {
                    writeln!(out, "{shown}: {} rows, nothing wrong", checked.rows)?;
                } else {
                    for problem in &checked.problems {
                        writeln!(out, "{problem}")?;
                    }
                    if checked.more > 0 {
                        writeln!(out, "and {} more", checked.more)?;
                    }
                    let cure = "restore a backup (fanfare restore --replace)";
                    writeln!(out, "{shown} is damaged: {cure}")?;
                }
                if !checked.problems.is_empty() {
                    return Err(Failure::Unsound);
                }
            }
            What::Compact => {
                progress.begin("packing");
                let compacted = maintenance::compact(&path).map_err(failed)?;
                drop(progress);
                if self.json {
                    print(&mut out, &compacted)?;
                } else {
                    let before = ByteSize(compacted.before_bytes);
                    writeln!(
                        out,
                        "{shown}: {before} -> {}",
                        ByteSize(compacted.after_bytes)
                    )?;
                }
            }
            What::Stats => {
                let weighed = maintenance::weigh(&path).map_err(failed)?;
                if self.json {
                    return print(&mut out, &weighed);
                }
                let on_disk = ByteSize(weighed.disk_bytes);
                writeln!(out, "{shown}: {on_disk} on disk")?;
                let rows: Vec<_> = weighed
                    .tables
                    .iter()
                    .map(|(name, rows)| [name.clone(), rows.to_string()])
                    .collect();
                table::write(&mut out, ["TABLE", "ROWS"], &rows)?;
            }
        }
        Ok(())
    }
}

fn print(out: &mut impl Write, answer: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string(answer).map_err(|error| Failure::Other(error.into()))?;
    Ok(writeln!(out, "{text}")?)
}

fn failed(error: MaintenanceError) -> Failure {
    Failure::Other(error.into())
}
