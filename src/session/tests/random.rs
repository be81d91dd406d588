//! Anything in any order: the bench watches what must hold.

use super::super::*;
use super::bench::{Bench, TOKEN_MS, at, event, identity, raw};
use super::dice::Dice;
use crate::protocol::history::{Entry, Unrecoverable};

#[test]
fn no_order_of_inputs_breaks_the_rules() {
    let mut dice = Dice::from_environment();
    let mut endings = std::collections::BTreeMap::new();
    for _ in 0..1_000 {
        let ending = live(&mut dice);
        *endings.entry(ending).or_insert(0) += 1;
    }
    // Else the lives were too dull to prove anything.
    for ending in [
        "CLOSE 4100",
        "CLOSE 4101",
        "CLOSE 4102",
        "CLOSE 4303",
        "DROP",
        "still open",
    ] {
        assert!(endings.contains_key(ending), "never {ending}: {endings:?}");
    }
}

/// One connection's life; how it ended.
fn live(dice: &mut Dice) -> String {
    let impatient = dice.below(5) == 0;
    let answers_pings = dice.below(5) > 0;
    let mut bench = Bench::with(|terms| {
        terms.limits.commands_per_second = if impatient { 1 } else { 50 };
    });
    let mut last = Vec::new();
    for _ in 0..dice.below(300) {
        if !impatient {
            let most_ms = *dice.pick(&[1, 100, 30_000, 120_000]);
            bench.wait(dice.below(most_ms));
        }
        let lines = if bench.session.is_busy() && dice.below(3) > 0 {
            let answer = answer(dice, &bench);
            bench.answer(answer)
        } else {
            let input = input(dice, &bench);
            bench.handle(input)
        };
        if answers_pings && lines.iter().any(|line| line == "PING") {
            bench.handle(Input::Pong);
        }
        if bench.has_ended() && !lines.is_empty() {
            last = lines;
        }
    }
    bench.finish();
    last.pop().unwrap_or_else(|| "still open".to_owned())
}

fn input(dice: &mut Dice, bench: &Bench) -> Input {
    match dice.below(30) {
        0..4 => Input::Deadline,
        6 if dice.below(10) == 0 => Input::Drain {
            at_ms: bench.now.mono_ms + dice.below(2_000),
        },
        7 if dice.below(10) == 0 => Input::End(Close::TooSlow),
        // The worker reads nothing while a call is out.
        _ if bench.session.is_busy() => Input::Deadline,
        _ => Input::Request(Request::parse(&message(dice))),
    }
}

fn message(dice: &mut Dice) -> String {
    let channel = *dice.pick(&[
        r#""post_1""#,
        r#"{"type":"post","postId":1}"#,
        r#""post_2""#,
        r#""post_3""#,
        r#""live_1""#,
        r#""room_7""#,
        r#""room_8""#,
        r#""feed""#,
        r#""notifications""#,
        r#""feed_u2""#,
        r#""gate_1""#,
        r#""gate_2""#,
        "7",
    ]);
    let id = *dice.pick(&["", r#","id":1"#, r#","id":"x""#]);
    let rest = match dice.below(9) {
        0..3 => format!(r#""subscribe","channel":{channel}"#),
        3 => format!(r#""subscribe","channel":{channel},"recover":{{"epoch":"e1","offset":2}}"#),
        4 => format!(r#""unsubscribe","channel":{channel}"#),
        5 => format!(r#""publish","channel":{channel},"event":{{"type":"x"}}"#),
        6 => format!(r#""history","channel":{channel}"#),
        7 => format!(r#""presence","channel":{channel}"#),
        _ => (*dice.pick(&[r#""ping""#, r#""refresh","token":"t""#, "7", r#""what""#])).to_owned(),
    };
    format!(r#"{{"type":{rest}{id}}}"#)
}

/// An answer that fits the call that is out.
fn answer(dice: &mut Dice, bench: &Bench) -> Answer {
    let Stage::Busy(pending) = &bench.session.stage else {
        unreachable!()
    };
    if dice.below(4) == 0 {
        return Answer::Failed {
            code: "unavailable",
        };
    }
    match &pending.asked {
        Asked::Standing { .. } => Answer::Subscribed {
            position: Some(at(dice.below(9))),
            missed: None,
            unread: None,
        },
        Asked::Unread => Answer::Unread((dice.below(2) == 0).then(|| Unread {
            notifications: vec![raw("{}")],
            count: 1,
        })),
        Asked::Subscribe { .. } => Answer::Subscribed {
            position: (dice.below(2) == 0).then(|| at(9)),
            missed: match dice.below(3) {
                0 => None,
                1 => Some(Err(Unrecoverable::TooFar)),
                _ => Some(Ok(vec![Entry {
                    offset: 9,
                    event: event(r#"{"type":"x"}"#),
                }])),
            },
            unread: (dice.below(3) == 0).then(|| Unread {
                notifications: vec![raw("{}")],
                count: 1,
            }),
        },
        Asked::Publish { .. } => Answer::Published { position: None },
        Asked::History { .. } => Answer::History {
            position: at(9),
            events: vec![raw("{}")],
        },
        Asked::Presence { .. } => Answer::Presence {
            users: vec!["u1".into()],
            count: 1,
        },
        Asked::Authorize(_) => Answer::Authorized(dice.below(3) > 0),
        Asked::Refresh => Answer::Verified(match dice.below(3) {
            0 => Err("expired"),
            1 => Ok(identity("u2", TOKEN_MS, &[])),
            _ => Ok(identity("u1", dice.below(TOKEN_MS) + TOKEN_MS, &["room_8"])),
        }),
    }
}
