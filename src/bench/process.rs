//! What a process and the machine have used, from /proc: proc_pid_stat(5), proc_stat(5).

use std::fs;
use std::io;

use super::stopwatch;

/// /proc counts in hundredths of a second, whatever the kernel's own tick is.
const NANOS_PER_TICK: u64 = 10_000_000;

/// Readings at one moment; the difference of two is what was used between them.
#[derive(Debug, Clone, Copy, Default)]
pub struct Reading {
    at_ns: u64,
    server_ns: Option<u64>,
    client_ns: u64,
    machine_ns: u64,
}

/// What was used between two readings.
#[derive(Debug, Clone, Copy, Default)]
pub struct Used {
    /// Seconds that passed.
    pub seconds: f64,
    /// CPU seconds of the server; `None`: nobody said which process that is.
    pub server: Option<f64>,
    /// CPU seconds of this process.
    pub client: f64,
    /// CPU seconds of everything else on the machine.
    pub others: f64,
}

impl Reading {
    /// Of now; `server` is the process id of the server, if it is known.
    ///
    /// # Errors
    /// When the server has ended.
    pub fn now(server: Option<u32>) -> io::Result<Self> {
        Ok(Self {
            at_ns: stopwatch::nanos(),
            server_ns: server.map(|pid| cpu_nanos(&pid.to_string())).transpose()?,
            client_ns: cpu_nanos("self")?,
            machine_ns: machine_nanos()?,
        })
    }

    /// What was used since an earlier reading of the same server.
    pub fn since(&self, earlier: &Self) -> Used {
        let seconds = |now: u64, then: u64| stopwatch::seconds(now.saturating_sub(then));
        let server = self.server_ns.zip(earlier.server_ns);
        let server = server.map(|(now, then)| seconds(now, then));
        let client = seconds(self.client_ns, earlier.client_ns);
        let machine = seconds(self.machine_ns, earlier.machine_ns);
        Used {
            seconds: seconds(self.at_ns, earlier.at_ns),
            server,
            client,
            others: (machine - client - server.unwrap_or(0.0)).max(0.0),
        }
    }
}

/// CPU time of all threads of a process, in nanoseconds: the scheduler's own figure where the kernel
/// has it, else user and system time in hundredths of a second.
fn cpu_nanos(process: &str) -> io::Result<u64> {
    let scheduled = scheduled_nanos(process).unwrap_or(0);
    if scheduled > 0 {
        return Ok(scheduled);
    }
    // Fields 14 and 15, counted after the name in parentheses, which may hold anything.
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks = after_name.split_whitespace().skip(11).take(2);
    Ok(ticks
        .filter_map(|field| field.parse::<u64>().ok())
        .sum::<u64>()
        * NANOS_PER_TICK)
}

/// The first field of each thread's schedstat. A thread that has ended is no longer in it; those of
/// the server live as long as the server.
fn scheduled_nanos(process: &str) -> io::Result<u64> {
    let mut sum = 0;
    for thread in fs::read_dir(format!("/proc/{process}/task"))? {
        // A thread that ended between the two calls has nothing to add.
        let Ok(text) = fs::read_to_string(thread?.path().join("schedstat")) else {
            continue;
        };
        let first = text.split_whitespace().next();
        sum += first
            .and_then(|field| field.parse::<u64>().ok())
            .unwrap_or(0);
    }
    Ok(sum)
}

/// CPU time that the machine has not been idle, of all cores together, in nanoseconds.
fn machine_nanos() -> io::Result<u64> {
    let stat = fs::read_to_string("/proc/stat")?;
    let line = stat.lines().next().unwrap_or_default();
    let fields: Vec<u64> = line
        .split_whitespace()
        .skip(1)
        .map(|field| field.parse().unwrap_or(0))
        .collect();
    // user nice system idle iowait irq softirq steal; what follows is contained in the first two.
    let busy = [0, 1, 2, 5, 6, 7].iter();
    Ok(busy.filter_map(|&index| fields.get(index)).sum::<u64>() * NANOS_PER_TICK)
}

/// Resident memory of a process, in bytes.
///
/// # Errors
/// When the process is gone or somebody else's.
pub fn resident_bytes(pid: u32) -> io::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let mut lines = text.lines();
    let kib = lines
        .find_map(|line| line.strip_prefix("Rss:"))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|field| field.parse::<u64>().ok())
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "smaps_rollup has no Rss"))?;
    Ok(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_shows_in_the_readings_of_its_process() {
        let me = std::process::id();
        let before = Reading::now(Some(me)).unwrap();
        let mut sum = 0u64;
        while cpu_nanos("self").unwrap() < before.client_ns + 20_000_000 {
            sum = (0..100_000u64).fold(sum, |sum, n| std::hint::black_box(sum ^ n));
        }
        let used = Reading::now(Some(me)).unwrap().since(&before);
        assert!(used.client >= 0.02, "{used:?}");
        assert!(used.server.unwrap() >= 0.02, "{used:?}");
        assert!(used.seconds > 0.0);
        assert!(resident_bytes(me).unwrap() > 100_000);
    }
}
