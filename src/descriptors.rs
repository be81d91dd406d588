//! Open file descriptors: how many there may be, and how many sockets that leaves room for.

use crate::limits::HTTP_CONNECTIONS_MAX;

/// Descriptors that are not sockets of clients: files, epoll, the metrics listener. A twentieth of
/// all, within these bounds.
const FILES_RESERVED_MIN: usize = 32;
const FILES_RESERVED_MAX: usize = 128;
/// Sockets beside `limits.connections` at least, for those who are told that there are too many.
const ANSWERS_RESERVED: usize = 16;

/// How many sockets there is room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// WebSockets: past it, an upgrade is answered with 503.
    pub connections: usize,
    /// All sockets: past it, there is no answer. Larger, so that 503 is really answered.
    pub sockets: usize,
}

impl Room {
    /// Of so many descriptors; `asked` is `limits.connections`, where 0 is nine tenths of them.
    pub fn of(descriptors: usize, asked: usize) -> Self {
        let files = (descriptors / 20).clamp(FILES_RESERVED_MIN, FILES_RESERVED_MAX);
        let sockets = descriptors.saturating_sub(files);
        let asked = match asked {
            0 => descriptors / 10 * 9,
            asked => asked,
        };
        let connections = asked.min(sockets.saturating_sub(ANSWERS_RESERVED)).max(1);
        Self {
            connections,
            sockets: sockets.min(connections.saturating_add(HTTP_CONNECTIONS_MAX)),
        }
    }
}

/// Raises the soft limit on open descriptors to the hard one; how many there may be.
pub fn raise_limit() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    /// Where the kernel says "unlimited", its own bound (`fs.nr_open`) is about this.
    const UNLIMITED: u64 = 1 << 20;
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(UNLIMITED);
    let raised = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: Some(most),
            maximum: limit.maximum,
        },
    );
    let now = if raised.is_ok() {
        most
    } else {
        limit.current.unwrap_or(UNLIMITED)
    };
    usize::try_from(now).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_always_sockets_left_to_say_that_there_are_too_many() {
        let room = |descriptors, asked| {
            let Room {
                connections,
                sockets,
            } = Room::of(descriptors, asked);
            (connections, sockets)
        };
        assert_eq!(room(256, 0), (208, 224));
        assert_eq!(room(512, 0), (459, 480));
        assert_eq!(room(1_024, 0), (918, 973));
        assert_eq!(room(1 << 20, 0), (943_713, 951_905));
        // What was asked for holds where there is room, and no further.
        assert_eq!(room(1_024, 100), (100, 973));
        assert_eq!(room(1_024, 100_000), (957, 973));
        for descriptors in 50..70_000 {
            let (connections, sockets) = room(descriptors, 0);
            assert!(connections + ANSWERS_RESERVED <= sockets, "{descriptors}");
            assert!(sockets + FILES_RESERVED_MIN <= descriptors);
        }
    }
}
