//! The `fanfare` binary: commands, and the life of the process.

mod cli;

use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command};

fn main() -> ExitCode {
    let Cli { command, settings } = Cli::parse();
    let sources = settings.sources();
    let outcome = match command.unwrap_or(Command::Serve) {
        Command::Serve => cli::serve::run(sources),
        Command::Reload(reload) => reload.run(&sources),
        Command::Check(check) => check.run(&sources),
        Command::Token(token) => token.run(sources),
        Command::Stats(stats) => stats.run(&sources),
        Command::Connections(connections) => connections.run(&sources),
        Command::Publish(publish) => publish.run(&sources),
        Command::Subscribe(subscribe) => subscribe.run(&sources),
        Command::Tail(tail) => tail.run(&sources),
        Command::Notify(notify) => notify.run(&sources),
        Command::Doctor(doctor) => doctor.run(&sources),
        Command::Backup(backup) => backup.run(&sources),
        Command::Restore(restore) => restore.run(&sources),
        Command::Migrate(migrate) => migrate.run(&sources),
        Command::Store(store) => store.run(&sources),
        Command::Bench(bench) => bench.run(sources),
        Command::Documents(documents) => documents.run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.report();
            failure.exit_code()
        }
    }
}
