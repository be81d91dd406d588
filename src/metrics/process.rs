//! What the kernel says about this process. Linux's `/proc`; elsewhere and behind a wall, zeros.

use std::fs;

use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

/// Resources in use.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Process {
    /// Memory that is really there.
    pub resident_bytes: u64,
    /// Address space.
    pub virtual_bytes: u64,
    /// User and system time of all threads.
    pub cpu_seconds: f64,
    /// Open file descriptors.
    pub open_fds: u64,
    /// How many it may open; `None`: no limit.
    pub max_fds: Option<u64>,
    /// Threads.
    pub threads: u64,
}

impl Process {
    /// Asks the kernel.
    pub fn read() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        Self {
            resident_bytes: member(&status, "VmRSS:") * 1024,
            virtual_bytes: member(&status, "VmSize:") * 1024,
            cpu_seconds: cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9,
            open_fds: fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64),
            max_fds: getrlimit(Resource::Nofile).current,
            threads: member(&status, "Threads:"),
        }
    }
}

/// The number after `name`; sizes are in KiB.
fn member(status: &str, name: &str) -> u64 {
    status
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn the_kernel_answers() {
        let before = Process::read();
        let files: Vec<_> = (0..10)
            .map(|_| fs::File::open("/dev/null").unwrap())
            .collect();
        let memory = vec![1u8; 64 << 20];
        let after = Process::read();
        assert!(after.open_fds >= before.open_fds.saturating_sub(5) + files.len() as u64 - 5);
        assert!(after.resident_bytes > memory.len() as u64);
        assert!(after.virtual_bytes > after.resident_bytes);
        assert!(after.cpu_seconds > 0.0 && after.cpu_seconds >= before.cpu_seconds);
        assert!(after.threads >= 1);
    }
}
