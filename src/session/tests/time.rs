//! What time brings: heartbeat, expiry, a planned stop, and commands that come too fast.

use super::super::*;
use super::bench::{Bench, START, TOKEN_MS, at, identity};

const WARNING: &str =
    r#"{"type":"token_expiring","data":{"expiresAt":"2026-11-23T04:35:06.789Z"}}"#;

/// Lets time pass up to the deadline, as the worker does.
fn next(bench: &mut Bench) -> (u64, Vec<String>) {
    let due_ms = bench.session.deadline_ms();
    bench.wait(due_ms - bench.now.mono_ms);
    (due_ms - START.mono_ms, bench.handle(Input::Deadline))
}

#[test]
fn a_peer_that_answers_pings_lives_until_its_token_ends() {
    let mut bench = Bench::new();
    let mut pings = 0;
    loop {
        let (after_ms, lines) = next(&mut bench);
        match lines.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["PING"] => {
                pings += 1;
                assert_eq!(after_ms, pings * 25_000);
                assert!(bench.handle(Input::Pong).is_empty());
            }
            [WARNING] => assert_eq!(after_ms, TOKEN_MS - 60_000),
            ["CLOSE 4101"] => {
                assert_eq!((after_ms, pings), (TOKEN_MS, 71));
                break;
            }
            _ => panic!("{after_ms}: {lines:?}"),
        }
    }
    assert_eq!(bench.session.deadline_ms(), u64::MAX);
    bench.finish();
}

#[test]
fn a_peer_that_does_not_is_dropped_at_the_second_ping() {
    let mut bench = Bench::new();
    bench.subscribed("post_1");
    assert_eq!(next(&mut bench), (25_000, vec!["PING".to_owned()]));
    // Commands are no pongs: a proxy in between may answer for a dead peer's socket, but not this.
    bench.ask(r#"{"type":"ping"}"#);
    assert_eq!(next(&mut bench), (50_000, vec!["DROP".to_owned()]));
    bench.finish();
}

#[test]
fn a_refresh_moves_the_end_and_the_warning_comes_again() {
    let mut bench = Bench::new();
    let warned_ms = TOKEN_MS - 60_000;
    bench.wait(warned_ms);
    bench.handle(Input::Pong);
    let lines = bench.handle(Input::Deadline);
    assert!(lines.contains(&WARNING.to_owned()), "{lines:?}");
    bench.handle(Input::Pong);
    bench.ask(r#"{"type":"refresh","token":"t"}"#);
    bench.answer(Answer::Verified(Ok(identity("u1", TOKEN_MS * 2, &[]))));
    bench.wait(60_000);
    let lines = bench.handle(Input::Deadline);
    assert_eq!(lines, ["PING"], "it would have ended here");
    bench.handle(Input::Pong);
    bench.wait(TOKEN_MS - 60_000);
    let lines = bench.handle(Input::Deadline);
    assert!(
        lines.contains(&WARNING.replace("04:35", "05:05")),
        "{lines:?}"
    );
    bench.handle(Input::Pong);
    bench.wait(60_000);
    assert_eq!(bench.handle(Input::Deadline), ["CLOSE 4101"]);
}

#[test]
fn a_stop_comes_when_it_was_planned_and_calls_are_not_waited_for() {
    let mut bench = Bench::new();
    bench.subscribed("post_1");
    assert!(
        bench
            .handle(Input::Drain {
                at_ms: START.mono_ms + 700
            })
            .is_empty()
    );
    assert_eq!(bench.reply(r#"{"type":"ping"}"#), r#"{"type":"pong"}"#);
    bench.ask(r#"{"type":"subscribe","channel":"post_2"}"#);
    assert_eq!(bench.session.deadline_ms(), START.mono_ms + 700);
    assert_eq!(
        next(&mut bench),
        (
            700,
            vec!["LEAVE post_2".to_owned(), "CLOSE 4100".to_owned()]
        )
    );
    let late = Answer::Subscribed {
        position: Some(at(1)),
        missed: None,
        unread: None,
    };
    assert!(bench.answer(late).is_empty());
    bench.finish();
}

#[test]
fn after_the_last_effect_nothing_has_any() {
    for close in Close::ALL {
        let mut bench = Bench::new();
        bench.subscribed("post_1");
        let code = close.code();
        assert_eq!(bench.handle(Input::End(close)), [format!("CLOSE {code}")]);
        assert!(bench.has_ended());
        assert!(bench.ask(r#"{"type":"ping"}"#).is_empty());
        assert!(bench.handle(Input::Pong).is_empty());
        assert!(bench.handle(Input::End(Close::Revoked)).is_empty());
        assert!(bench.handle(Input::Drain { at_ms: 0 }).is_empty());
        bench.wait(TOKEN_MS * 2);
        assert!(bench.handle(Input::Deadline).is_empty());
        bench.finish();
    }
}

#[test]
fn too_many_commands_are_refused_and_too_many_of_those_are_the_end() {
    let mut bench = Bench::with(|terms| terms.limits.commands_per_second = 2);
    let ping = r#"{"type":"ping","id":"p"}"#;
    let refused =
        r#"{"type":"error","id":"p","data":{"message":"Too many messages","code":"rate_limited"}}"#;
    let pong = r#"{"type":"pong","id":"p"}"#;
    for _ in 0..10 {
        assert_eq!(bench.reply(ping), pong);
    }
    for _ in 0..99 {
        assert_eq!(bench.reply(ping), refused);
    }
    bench.wait(500);
    assert_eq!(
        bench.reply(ping),
        pong,
        "patience starts anew with a command that was in time"
    );
    for _ in 0..99 {
        assert_eq!(bench.reply(ping), refused);
    }
    assert_eq!(
        bench.ask(ping),
        [refused, "CLOSE 4303"],
        "every command is answered, the last one too"
    );
    bench.finish();
}

#[test]
fn a_dry_run_counts_them_and_refuses_none() {
    let mut bench = Bench::with(|terms| {
        terms.limits.commands_per_second = 2;
        terms.limits.dry_run = true;
    });
    for _ in 0..500 {
        assert_eq!(bench.reply(r#"{"type":"ping"}"#), r#"{"type":"pong"}"#);
    }
    assert_eq!(bench.too_fast, (0, 490));
    bench.finish();
}

#[test]
fn what_is_no_command_counts_as_one() {
    let mut bench = Bench::with(|terms| terms.limits.commands_per_second = 2);
    let lines: Vec<String> = (0..110).flat_map(|_| bench.ask("nonsense")).collect();
    assert_eq!(lines.len(), 111);
    assert_eq!(lines[110], "CLOSE 4303");
}
