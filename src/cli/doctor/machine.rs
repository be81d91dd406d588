//! The machine: descriptors, clock, disks, ports, certificates, the database at rest.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;

use bytesize::ByteSize;
use fanfare::broker::embedded::maintenance::MaintenanceError;
use fanfare::broker::embedded::{FILE_NAME, OpenError, maintenance};
use fanfare::clock::rfc3339;
use fanfare::config::Config;
use fanfare::descriptors::raise_limit;
use fanfare::event_log;
use fanfare::tls::Endpoint;

use super::Finding;

/// A server with fewer descriptors than this is soon full.
const DESCRIPTORS_FEW: usize = 10_000;
/// When this was written: no clock is right that is behind it.
const WRITTEN_MS: u64 = 1_793_000_000_000;
/// Less is soon full.
const DISK_LOW_BYTES: u64 = 1 << 30;
const DAY_MS: u64 = 24 * 60 * 60 * 1000;
/// Renewal is due before that.
const CERTIFICATE_DAYS: u64 = 14;

pub(super) fn descriptors(config: &Config) -> Finding {
    const WHAT: &str = "descriptors";
    let there = raise_limit();
    let wanted = config.limits.connections;
    if wanted != usize::MAX && wanted > there {
        let found = format!("{there}, and limits.connections is {wanted}");
        return Finding::bad(
            WHAT,
            found,
            "raise LimitNOFILE= of the service, or ulimit -n",
        );
    }
    if there < DESCRIPTORS_FEW {
        let found = format!("{there}: room for as many sockets at most");
        return Finding::warning(
            WHAT,
            found,
            "raise LimitNOFILE= of the service, or ulimit -n",
        );
    }
    Finding::good(WHAT, there.to_string())
}

pub(super) fn clock(unix_ms: u64) -> Finding {
    const WHAT: &str = "clock";
    const CURE: &str = "let it be kept: apt install systemd-timesyncd, timedatectl set-ntp true";
    let now = rfc3339(unix_ms);
    if unix_ms < WRITTEN_MS {
        let found = format!("{now} is in the past: tokens of others are not valid yet");
        return Finding::bad(WHAT, found, CURE);
    }
    let asked = Command::new("timedatectl")
        .args(["show", "--property=NTPSynchronized", "--value"])
        .output();
    match asked {
        Ok(output) if output.stdout.starts_with(b"yes") => {
            Finding::good(WHAT, format!("{now}, synchronized"))
        }
        Ok(output) if output.stdout.starts_with(b"no") => {
            Finding::warning(WHAT, format!("{now}, kept by nobody"), CURE)
        }
        _ => Finding::good(WHAT, now),
    }
}

pub(super) fn disks(config: &Config) -> Vec<Finding> {
    vec![
        disk("disk of data", &config.data_dir, 0),
        disk("disk of logs", &config.logs.dir, config.logs.free_bytes),
    ]
}

/// `floor`: below it nothing is written there.
fn disk(what: &'static str, folder: &Path, floor: u64) -> Finding {
    let shown = folder.display();
    match rustix::fs::statvfs(folder) {
        Ok(disk) => {
            let free = disk.f_bavail.saturating_mul(disk.f_frsize);
            let found = format!("{} free in {shown}", ByteSize(free));
            let total = disk.f_blocks.saturating_mul(disk.f_frsize);
            if free < event_log::floor(floor, total) {
                let found = format!("{found}: less than logs.free_bytes, so no line is written");
                Finding::bad(
                    what,
                    found,
                    "free some, or lower logs.keep_days and logs.day_bytes",
                )
            } else if free < DISK_LOW_BYTES {
                let cure = "free some, or lower limits.store_bytes and logs.keep_days";
                Finding::warning(what, found, cure)
            } else {
                Finding::good(what, found)
            }
        }
        Err(rustix::io::Errno::NOENT) => {
            Finding::skipped(what, format!("{shown} is made at the first start"))
        }
        Err(error) => {
            let cure = "run this as the user of the server, or as root";
            Finding::bad(what, format!("{shown}: {error}"), cure)
        }
    }
}

pub(super) fn certificates(config: &Config, unix_ms: u64) -> Option<Finding> {
    const WHAT: &str = "certificate";
    let files = config.server.tls.as_ref()?;
    let not_after_ms = match Endpoint::new(Some(files)) {
        Ok(endpoint) => endpoint.not_after_ms()?,
        Err(fault) => {
            let cure = "see server.tls in config.toml";
            return Some(Finding::bad(WHAT, fault.to_string(), cure));
        }
    };
    let days = not_after_ms.saturating_sub(unix_ms) / DAY_MS;
    let until = rfc3339(not_after_ms);
    let found = match not_after_ms <= unix_ms {
        true => format!("ended at {until}: clients refuse it"),
        false => format!("good until {until} ({days} days)"),
    };
    let cure = "renew it; the server takes the new files by itself";
    Some(match days {
        _ if not_after_ms <= unix_ms => Finding::bad(WHAT, found, cure),
        0..CERTIFICATE_DAYS => Finding::warning(WHAT, found, cure),
        _ => Finding::good(WHAT, found),
    })
}

/// Whether a server could bind what it has to.
pub(super) fn ports(config: &Config) -> Vec<Finding> {
    vec![
        port("server.listen", config.server.listen),
        port("metrics.listen", config.metrics.listen),
    ]
}

fn port(what: &'static str, address: SocketAddr) -> Finding {
    match TcpListener::bind(address) {
        Ok(_) => Finding::good(what, format!("{address} is free")),
        Err(error) => Finding::bad(
            what,
            format!("{address}: {error}"),
            format!(
                "see who has it: ss -ltnp 'sport = :{}'; or change {what}",
                address.port()
            ),
        ),
    }
}

pub(super) fn database(config: &Config) -> Finding {
    const WHAT: &str = "database";
    let path = config.data_dir.join(FILE_NAME);
    if !path.exists() {
        return Finding::skipped(WHAT, "there is none yet");
    }
    let cure = "restore a backup: fanfare restore --replace FILE";
    match maintenance::check(&path) {
        Ok(checked) if checked.problems.is_empty() => {
            Finding::good(WHAT, format!("{} rows, nothing wrong", checked.rows))
        }
        Ok(checked) => Finding::bad(WHAT, checked.problems.join("; "), cure),
        // Of the server that does not answer, and not damaged at all.
        Err(MaintenanceError::Open(error @ OpenError::InUse { .. })) => {
            Finding::skipped(WHAT, error.to_string())
        }
        Err(MaintenanceError::Open(error @ OpenError::Permission { .. })) => Finding::bad(
            WHAT,
            error.to_string(),
            "run this as the server's user or as root",
        ),
        Err(error) => Finding::bad(WHAT, error.to_string(), cure),
    }
}
