//! Bounds that are not configurable: each with its unit and its reason, and their relations proven
//! at compile time. What operators may change is `config::Limits`.

/// Events that wait in one worker's mailbox. A worker that is this far behind is seconds late.
pub const LANE_EVENTS_MAX: usize = 65_536;
/// Bytes of events that wait in one worker's mailbox.
pub const LANE_BYTES_MAX: usize = 64 << 20;
/// Events that a worker takes from its mailbox before it writes: enough that a connection's events
/// leave in one call, few enough that the first of them does not wait long (ARCHITECTURE.md 7).
pub const TURN_EVENTS_MAX: usize = 4_096;
/// Bytes of events that a worker takes from its mailbox before it writes.
pub const TURN_BYTES_MAX: usize = 1 << 20;
/// Bytes read from one socket at a time, and the size of the worker's one read buffer.
pub const READ_BYTES: usize = 64 << 10;
/// Reads from one socket in a row before others have their turn.
pub const READS_PER_TURN_MAX: usize = 2;
/// Bytes copied together for one write.
pub const WRITE_BYTES: usize = 256 << 10;
/// A frame at least this long is written from where it lies instead of being copied.
pub const WRITE_ALONE_BYTES: usize = 16 << 10;
/// Connections written to in one turn. Then reads, publications and other tasks have their share,
/// and what they bring joins the outboxes of all connections that are still to be written to: in a
/// flood every visit carries what came since the last one (ARCHITECTURE.md, Measurements).
pub const TURN_WRITES_MAX: usize = 64;
/// Bytes of live events held back for one member while its history is read.
pub const HELD_BYTES_MAX: usize = 256 << 10;
/// One answer may take this part of `limits.queue_bytes`, and a client that has not taken so much yet
/// is not asked what else it wants: the rest of its queue is for live events.
pub const QUEUE_SHARE: usize = 4;
/// Bytes of events that move at a time from a slow connection's backlog, where they may still be dropped,
/// to its outbox, where they may not.
pub const REFILL_BYTES: usize = 64 << 10;
/// Bytes of missed events that are read and sent at a time, after the first ones: few enough that live
/// traffic goes on between the pages of many who come back at once.
pub const REPLAY_BYTES: usize = 64 << 10;
/// Missed events that are read at a time.
pub const REPLAY_EVENTS_MAX: usize = 1_024;
/// Workers: their set is one word per channel.
pub const WORKERS_MAX: usize = 64;
/// A broker, store or token call for a client ends after this, with an error to the client.
pub const CALL_TIMEOUT_MS: u64 = 10_000;
/// After our close frame the peer has this long to answer before its socket is dropped.
pub const CLOSE_TIMEOUT_MS: u64 = 3_000;
/// A TLS handshake: slow networks need a second or two.
pub const HANDSHAKE_TIMEOUT_MS: u64 = 10_000;
/// The head of a request.
pub const HEAD_BYTES_MAX: usize = 16 << 10;
/// Header lines of a request.
pub const HEADERS_MAX: usize = 64;
/// Sockets that have not been upgraded yet or never will be, on one node.
pub const HTTP_CONNECTIONS_MAX: usize = 8_192;
/// All sockets of a worker are looked at for revoked tokens at most so often: a look at 50,000 takes
/// some milliseconds.
pub const RECHECK_EVERY_MS: u64 = 100;
/// A stop takes so long for each socket, unless the grace period is shorter.
pub const DRAIN_EACH_MS: u64 = 50;
/// Who is sent away by a stop comes back within a time that grows by a millisecond for each socket, from
/// here to there.
pub const RETURN_MS: std::ops::RangeInclusive<u64> = 500..=5_000;
/// A node that stops takes whoever comes for a tenth of the grace period, and for so long at most, so
/// that load balancers see by `/ready` that it will not.
pub const NOTICE_MAX_MS: u64 = 1_000;

/// Users in channels with presence, each counted once per channel; at 100 bytes each or so.
pub const PRESENCE_ENTRIES_MAX: usize = 1 << 20;
/// Users that one answer about presence names; it counts all.
pub const PRESENCE_USERS_MAX: usize = 1_000;

const _: () = {
    assert!(TURN_EVENTS_MAX <= LANE_EVENTS_MAX);
    assert!(TURN_BYTES_MAX <= LANE_BYTES_MAX);
    assert!(WRITE_ALONE_BYTES < WRITE_BYTES);
    assert!(WORKERS_MAX <= u64::BITS as usize);
    assert!(HEAD_BYTES_MAX >= 8_192, "hyper's minimum");
};
