//! Open files: how many sockets a measurement may have on this machine.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What server and client open besides the sockets.
const SPARE: u64 = 1_000;

/// Raises the limit, also above the hard one where that is allowed, for this process and those that it
/// starts; how many of the `wanted` sockets each may open.
pub fn make_room(wanted: usize) -> usize {
    let limit = getrlimit(Resource::Nofile);
    let Some(maximum) = limit.maximum else {
        return wanted;
    };
    let needed = wanted as u64 + SPARE;
    let raised = |current: u64, maximum: u64| {
        let limit = Rlimit {
            current: Some(current),
            maximum: Some(maximum),
        };
        setrlimit(Resource::Nofile, limit).is_ok()
    };
    let most = if needed <= maximum || raised(needed, needed) {
        needed.max(maximum)
    } else {
        maximum
    };
    let allowed = if raised(most, most) {
        most
    } else {
        limit.current.unwrap_or(most)
    };
    let room = usize::try_from(allowed.saturating_sub(SPARE)).unwrap_or(usize::MAX);
    wanted.min(room)
}

/// What is said when there is less room than was wanted.
pub fn too_few(wanted: usize, room: usize) -> String {
    format!(
        "the limit on open files (ulimit -Hn) leaves room for {room} sockets, not {wanted}: \
         measured with {room}"
    )
}
