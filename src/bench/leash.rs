//! How a measurement starts its servers: the same binary (or a redis-server under it), which first ties itself to the life of the
//! one who started it and to a CPU, then becomes the server.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use rustix::process::{Signal, set_parent_process_death_signal};
use rustix::thread::{CpuSet, sched_setaffinity};

/// Becomes `fanfare ARGUMENTS`, or another program, killed when the thread that started this process ends.
///
/// # Errors
/// Why not.
pub fn become_server(
    cpu: Option<usize>,
    program: Option<&OsStr>,
    arguments: &[OsString],
) -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    if let Some(cpu) = cpu {
        pin(cpu)?;
    }
    let program = match program {
        Some(program) => program.into(),
        None => std::env::current_exe()?,
    };
    Err(Command::new(program).args(arguments).exec())
}

/// Ties this thread, and those that it starts from now on, to a CPU.
///
/// # Errors
/// When there is no such CPU, or this process may not use it.
pub fn pin(cpu: usize) -> io::Result<()> {
    if cpu >= CpuSet::MAX_CPU {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut set = CpuSet::new();
    set.set(cpu);
    Ok(sched_setaffinity(None, &set)?)
}
