//! Joining, reading, postponing and activating, however they interleave with events.

use super::*;
use crate::protocol::Epoch;

struct Bench {
    channels: Channels,
    key: ChannelKey,
    got: HashMap<Slot, Vec<u64>>,
}

impl Bench {
    fn new() -> Self {
        Self {
            channels: Channels::default(),
            key: ChannelKey::parse("post_1", 255).unwrap(),
            got: HashMap::new(),
        }
    }

    fn event(&mut self, offset: u64) {
        let frame = Frame::encoded(&offset.to_be_bytes());
        let got = &mut self.got;
        self.channels
            .event(&self.key, Some(&at(offset)), &frame, |slot, _| {
                got.entry(slot).or_default().push(offset);
            });
    }

    /// The history was read up to `until`; what it held is not part of the test.
    fn activate(&mut self, slot: Slot, until: u64) {
        let held = self.channels.activate(&self.key, slot, Some(at(until)));
        let Activated::Held(held) = held else {
            panic!()
        };
        let got = self.got.entry(slot).or_default();
        got.extend(1..=until);
        got.extend(
            held.iter()
                .map(|(_, held)| u64::from_be_bytes(held[..].try_into().unwrap())),
        );
    }
}

fn at(offset: u64) -> Position {
    Position {
        epoch: Epoch::new("e"),
        offset,
    }
}

#[test]
fn no_hole_and_no_duplicate_however_reading_and_events_interleave() {
    // For every moment of joining, reading and activating among ten events.
    for joined in 0..=10u64 {
        for read in joined..=10 {
            for activated in joined..=10 {
                // The broker is always at least as far as this worker.
                let until = read.max(joined);
                let mut bench = Bench::new();
                bench.channels.join(bench.key.clone(), 9, Slow::Close);
                bench.activate(9, 0);
                for offset in 0..=10 {
                    if offset > 0 {
                        bench.event(offset);
                    }
                    if offset == joined {
                        bench.channels.join(bench.key.clone(), 1, Slow::Close);
                    }
                    if offset == activated {
                        bench.activate(1, until);
                    }
                }
                let all: Vec<u64> = (1..=10).collect();
                assert_eq!(
                    bench.got[&1], all,
                    "joined {joined} read {read} active {activated}"
                );
                assert_eq!(bench.got[&9], all);
            }
        }
    }
}

/// The same, with a page that is read and sent first, at any moment, and the rest later.
#[test]
fn no_hole_and_no_duplicate_however_pages_and_events_interleave() {
    for joined in 0..=8u64 {
        for page in 0..=8 {
            for postponed in joined..=8 {
                for resumed in postponed..=8 {
                    for (read, activated) in (resumed..=8).flat_map(|read| {
                        let activated = resumed..=8;
                        activated.map(move |activated| (read, activated))
                    }) {
                        // A page that is not the last is short of what the broker has.
                        if page >= postponed {
                            continue;
                        }
                        let mut bench = Bench::new();
                        for offset in 0..=8 {
                            if offset > 0 {
                                bench.event(offset);
                            }
                            if offset == joined {
                                bench.channels.join(bench.key.clone(), 1, Slow::Close);
                            }
                            if offset == postponed {
                                let held = bench.channels.postpone(&bench.key, 1);
                                assert!(matches!(held, Activated::Held(held) if held.is_empty()));
                                bench.got.entry(1).or_default().extend(1..=page);
                            }
                            if offset == resumed {
                                bench.channels.resume(&bench.key, 1);
                            }
                            if offset == activated {
                                let until = read.max(resumed);
                                let held = bench.channels.activate(&bench.key, 1, Some(at(until)));
                                let Activated::Held(held) = held else {
                                    panic!()
                                };
                                let got = bench.got.entry(1).or_default();
                                got.extend(page + 1..=until);
                                got.extend(held.iter().map(|(_, held)| {
                                    u64::from_be_bytes(held[..].try_into().unwrap())
                                }));
                            }
                        }
                        let all: Vec<u64> = (1..=8).collect();
                        assert_eq!(
                            bench.got[&1], all,
                            "joined {joined} page {page} postponed {postponed} resumed {resumed} \
                             read {read} activated {activated}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn a_postponed_member_holds_nothing_and_hears_what_has_no_history() {
    let mut bench = Bench::new();
    bench.channels.join(bench.key.clone(), 1, Slow::Close);
    let (passing, large) = (Frame::text("x"), vec![0; HELD_BYTES_MAX / 2 + 1]);
    let key = bench.key.clone();
    bench
        .channels
        .event(&key, None, &passing, |_, _| panic!("not yet"));
    bench.event(1);
    let Activated::Held(held) = bench.channels.postpone(&key, 1) else {
        panic!()
    };
    assert_eq!(held.len(), 1, "the one that is in no history");
    let mut sent = 0;
    bench.channels.event(&key, None, &passing, |_, _| sent += 1);
    assert_eq!(sent, 1);
    for offset in 2..20 {
        let frame = Frame::encoded(&large);
        bench
            .channels
            .event(&key, Some(&at(offset)), &frame, |_, _| panic!("later"));
    }
    bench.channels.resume(&key, 1);
    bench.event(20);
    let held = bench.channels.activate(&key, 1, Some(at(19)));
    assert!(matches!(held, Activated::Held(held) if held.len() == 1));
    bench.event(21);
    assert_eq!(bench.got[&1], [21]);
    assert!(bench.channels.leave(&key, 1).is_some());
}

#[test]
fn without_history_everything_after_joining_arrives() {
    let mut bench = Bench::new();
    assert!(bench.channels.join(bench.key.clone(), 1, Slow::Close).1);
    let frame = Frame::text("x");
    bench
        .channels
        .event(&bench.key.clone(), None, &frame, |_, _| panic!("not yet"));
    let held = bench.channels.activate(&bench.key, 1, None);
    let Activated::Held(held) = held else {
        panic!()
    };
    assert_eq!(held.len(), 1);
    assert_eq!(&*held[0].1, b"\x81\x01x");
    let mut sent = Vec::new();
    bench
        .channels
        .event(&bench.key.clone(), None, &frame, |slot, _| sent.push(slot));
    assert_eq!(sent, [1]);
}

/// Such as who comes and goes in a channel with history.
#[test]
fn events_without_history_do_not_end_the_waiting() {
    let mut bench = Bench::new();
    let passing = Frame::text("x");
    bench.channels.join(bench.key.clone(), 1, Slow::Close);
    bench
        .channels
        .event(&bench.key, None, &passing, |_, _| panic!("not yet"));
    let held = bench.channels.activate(&bench.key, 1, Some(at(2)));
    let Activated::Held(held) = held else {
        panic!()
    };
    assert_eq!(held.len(), 1);
    assert_eq!(*held[0].1, *passing);
    let mut sent = 0;
    bench
        .channels
        .event(&bench.key, None, &passing, |_, _| sent += 1);
    assert_eq!(sent, 1);
    for offset in 1..=4 {
        bench.event(offset);
    }
    assert_eq!(bench.got[&1], [3, 4]);
}

#[test]
fn what_is_held_is_bounded() {
    let mut bench = Bench::new();
    bench.channels.join(bench.key.clone(), 1, Slow::Close);
    let frame = Frame::encoded(&vec![0; HELD_BYTES_MAX / 2 + 1]);
    for offset in 1..=3 {
        bench.channels.event(
            &bench.key.clone(),
            Some(&at(offset)),
            &frame,
            |_, _| panic!(),
        );
    }
    let lost = bench.channels.activate(&bench.key, 1, Some(at(0)));
    assert!(matches!(lost, Activated::Lost));
}

#[test]
fn edges_are_told() {
    let mut channels = Channels::default();
    let key = ChannelKey::parse("post_1", 255).unwrap();
    assert!(channels.join(key.clone(), 1, Slow::Close).1);
    assert!(!channels.join(key.clone(), 2, Slow::Close).1);
    channels.activate(&key, 2, None);
    assert_eq!(channels.leave(&key, 2), Some(false));
    assert_eq!(channels.leave(&key, 2), None);
    assert_eq!(channels.leave(&key, 1), Some(true));
    assert!(channels.map.is_empty());
}

#[test]
fn a_member_knows_where_it_stands() {
    let mut bench = Bench::new();
    bench.channels.join(bench.key.clone(), 1, Slow::Close);
    bench.activate(1, 5);
    assert_eq!(bench.channels.standing(&bench.key, 1), Some(at(5)));
    bench.event(4);
    assert_eq!(bench.channels.standing(&bench.key, 1), Some(at(5)));
    bench.event(5);
    bench.event(6);
    assert_eq!(bench.channels.standing(&bench.key, 1), Some(at(6)));
    assert_eq!(bench.got[&1], [1, 2, 3, 4, 5, 6]);
}
