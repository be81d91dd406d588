//! `fanfare documents`: manual pages and shell completions, made from the command line itself, so
//! that they cannot say anything else. Packages are made with it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use super::{Cli, Failure};

#[derive(Debug, Args)]
pub struct Documents {
    /// The folder that gets them, in man1, bash, fish and zsh; created if missing
    folder: PathBuf,
}

impl Documents {
    pub fn run(self) -> Result<(), Failure> {
        manual_pages(&made(&self.folder, "man1")?)?;
        for (shell, folder) in [
            (Shell::Bash, "bash"),
            (Shell::Fish, "fish"),
            (Shell::Zsh, "zsh"),
        ] {
            let folder = made(&self.folder, folder)?;
            clap_complete::generate_to(shell, &mut Cli::command(), "fanfare", folder)?;
        }
        Ok(())
    }
}

/// One page for `fanfare` and one for each command that `--help` shows.
fn manual_pages(folder: &Path) -> io::Result<()> {
    let mut cli = Cli::command().disable_help_subcommand(true);
    cli.build();
    clap_mangen::generate_to(cli, folder)
}

fn made(parent: &Path, name: &str) -> io::Result<PathBuf> {
    let folder = parent.join(name);
    fs::create_dir_all(&folder)?;
    Ok(folder)
}
