//! Restoring, expiry, limits and eviction.

use super::*;

fn slot(sequence: u64, expire_ms: u64) -> Slot {
    Slot {
        sequence,
        expire_ms,
        event: Event::parse(&format!("{{\"type\":\"x\",\"n\":{sequence}}}"), 100).unwrap(),
    }
}

fn ring(limit: usize) -> Ring {
    let key = ChannelKey::parse("post_1", 255).unwrap();
    Ring::new(key, Epoch::new("e"), 0, limit)
}

#[test]
fn rows_that_moved_in_the_log_come_back_in_their_order() {
    let mut ring = ring(10);
    // 3 and 4 were copied forward behind 5; 2 is a left-over in front of a hole.
    let rows = vec![
        (5, slot(50, 99)),
        (2, slot(20, 99)),
        (4, slot(61, 99)),
        (6, slot(62, 99)),
    ];
    ring.restore(rows, 0);
    assert_eq!(ring.top, 6);
    let offsets: Vec<u64> = ring
        .page(None, 10, 0)
        .iter()
        .map(|entry| entry.offset)
        .collect();
    assert_eq!(offsets, [4, 5, 6]);
    assert!(ring.holds(4, 61, 0) && !ring.holds(4, 40, 0));
}

#[test]
fn a_shorter_life_holds_for_what_is_older() {
    let mut ring = ring(10);
    ring.push(slot(1, 1_000));
    ring.push(slot(2, 100));
    assert!(ring.page(None, 10, 100).is_empty());
    assert_eq!(ring.after(1, 100), Err(Unrecoverable::HistoryExpired));
    assert_eq!(ring.after(2, 100), Ok(vec![]));
}

#[test]
fn a_smaller_limit_takes_the_oldest() {
    let mut ring = ring(10);
    for n in 1..=5 {
        ring.push(slot(n, 99));
    }
    ring.limit = 2;
    ring.push(slot(6, 99));
    assert_eq!(ring.after(3, 0), Err(Unrecoverable::TooFar));
    assert_eq!(ring.after(4, 0).unwrap().len(), 2);
}
