//! What becomes of a command that has to wait for the broker, the store or the token checker.

use super::super::*;
use super::bench::{Bench, TOKEN_MS, at, event, identity, raw};
use crate::protocol::history::{Entry, Unrecoverable};

#[test]
fn a_subscription_is_acknowledged_then_replayed_then_live() {
    let mut bench = Bench::new();
    let text =
        r#"{"type":"subscribe","id":"s","channel":"post_1","recover":{"epoch":"e1","offset":3}}"#;
    assert_eq!(
        bench.ask(text),
        ["JOIN post_1", "CALL subscribe post_1 history from e1:3"]
    );
    let missed = [4, 5].map(|offset| Entry {
        offset,
        event: event(r#"{"type":"x"}"#),
    });
    assert_eq!(
        bench.answer(Answer::Subscribed {
            position: Some(at(5)),
            missed: Some(Ok(missed.to_vec())),
            unread: None,
        }),
        [
            r#"{"type":"subscribed","id":"s","data":{"channel":"post_1","channelKey":"post_1","epoch":"e1","offset":5,"recovered":true}}"#,
            "ACTIVATE post_1 Some(5) [4, 5]",
        ]
    );
    bench.finish();
}

#[test]
fn what_cannot_be_recovered_has_its_reason() {
    for (reason, word) in [
        (Unrecoverable::EpochChanged, "epoch_changed"),
        (Unrecoverable::HistoryExpired, "history_expired"),
        (Unrecoverable::TooFar, "too_far"),
    ] {
        let mut bench = Bench::new();
        bench.ask(r#"{"type":"subscribe","channel":"post_1","recover":{"epoch":"e0","offset":3}}"#);
        assert_eq!(
            bench.answer(Answer::Subscribed {
                position: Some(at(5)),
                missed: Some(Err(reason)),
                unread: None,
            }),
            [
                format!(
                    r#"{{"type":"subscribed","data":{{"channel":"post_1","channelKey":"post_1","epoch":"e1","offset":5,"recovered":false,"reason":"{word}"}}}}"#
                ),
                "ACTIVATE post_1 Some(5) []".to_owned(),
            ]
        );
    }
}

#[test]
fn unread_notifications_come_after_the_acknowledgement() {
    let mut bench = Bench::new();
    bench.ask(r#"{"type":"subscribe","channel":"notifications","id":1}"#);
    let unread = Unread {
        notifications: vec![raw(r#"{"id":"n2"}"#), raw(r#"{"id":"n1"}"#)],
        count: 30,
    };
    assert_eq!(
        bench.answer(Answer::Subscribed {
            position: Some(at(0)),
            missed: None,
            unread: Some(unread),
        }),
        [
            r#"{"type":"subscribed","id":1,"data":{"channel":"notifications","channelKey":"notifications_u1","epoch":"e1","offset":0}}"#,
            "ACTIVATE notifications_u1 Some(0) []",
            r#"{"type":"unread_notifications","data":{"notifications":[{"id":"n2"},{"id":"n1"}],"count":30}}"#,
        ]
    );
}

#[test]
fn who_subscribes_to_the_notifications_again_hears_what_is_unread_again() {
    let mut bench = Bench::new();
    bench.subscribed("notifications_u1");
    let text = r#"{"type":"subscribe","channel":"notifications","id":2}"#;
    for (unread, told) in [
        (
            Some(Unread {
                notifications: vec![raw(r#"{"id":"n1"}"#)],
                count: 1,
            }),
            vec![
                r#"{"type":"unread_notifications","data":{"notifications":[{"id":"n1"}],"count":1}}"#,
            ],
        ),
        (None, vec![]),
    ] {
        assert_eq!(bench.ask(text), ["CALL standing notifications_u1"]);
        let standing = Answer::Subscribed {
            position: Some(at(9)),
            missed: None,
            unread: None,
        };
        assert_eq!(
            bench.answer(standing),
            [
                r#"{"type":"subscribed","id":2,"data":{"channel":"notifications","channelKey":"notifications_u1","epoch":"e1","offset":9}}"#,
                "CALL unread of u1",
            ]
        );
        assert_eq!(bench.answer(Answer::Unread(unread)), told);
    }
    // It stands without that, too.
    bench.ask(text);
    bench.answer(Answer::Subscribed {
        position: None,
        missed: None,
        unread: None,
    });
    let failed = Answer::Failed { code: "busy" };
    assert!(bench.answer(failed).is_empty());
    bench.finish();
}

#[test]
fn a_channel_without_history_has_no_position_and_nothing_to_recover() {
    let mut bench = Bench::new();
    let text = r#"{"type":"subscribe","channel":"live_1","recover":{"epoch":"e1","offset":3}}"#;
    let acknowledged = r#"{"type":"subscribed","data":{"channel":"live_1","channelKey":"live_1","recovered":false,"reason":"history_expired"}}"#;
    let nothing = || Answer::Subscribed {
        position: None,
        missed: None,
        unread: None,
    };
    assert_eq!(bench.ask(text), ["JOIN live_1", "CALL subscribe live_1"]);
    assert_eq!(
        bench.answer(nothing()),
        [acknowledged, "ACTIVATE live_1 None []"]
    );
    assert_eq!(bench.ask(text), ["CALL standing live_1"]);
    assert_eq!(bench.answer(nothing()), [acknowledged]);
    bench.ask(r#"{"type":"subscribe","channel":"live_1"}"#);
    assert_eq!(
        bench.answer(nothing()),
        [r#"{"type":"subscribed","data":{"channel":"live_1","channelKey":"live_1"}}"#]
    );
    bench.finish();
}

#[test]
fn subscribing_again_acknowledges_again_and_changes_nothing() {
    let mut bench = Bench::new();
    bench.subscribed("post_1");
    assert_eq!(
        bench.ask(r#"{"type":"subscribe","channel":{"type":"post","postId":1},"id":2}"#),
        ["CALL standing post_1"]
    );
    assert!(bench.session.is_busy());
    assert_eq!(
        bench.answer(Answer::Subscribed {
            position: Some(at(9)),
            missed: None,
            unread: None
        }),
        [
            r#"{"type":"subscribed","id":2,"data":{"channel":{"type":"post","postId":1},"channelKey":"post_1","epoch":"e1","offset":9}}"#
        ]
    );
    bench.finish();
}

#[test]
fn a_failed_call_is_said_and_leaves_nothing_behind() {
    for (text, leaves, channel) in [
        (
            r#"{"type":"subscribe","channel":"post_1","id":1}"#,
            true,
            true,
        ),
        (
            r#"{"type":"publish","channel":"live_1","event":{"type":"x"},"id":1}"#,
            false,
            false,
        ),
        (
            r#"{"type":"history","channel":"post_1","id":1}"#,
            false,
            false,
        ),
        (r#"{"type":"refresh","token":"t","id":1}"#, false, false),
    ] {
        let mut bench = Bench::new();
        bench.ask(text);
        let lines = bench.answer(Answer::Failed {
            code: "unavailable",
        });
        let named = if channel {
            r#""channel":"post_1","#
        } else {
            ""
        };
        let error = format!(
            r#"{{"type":"error","id":1,"data":{{"message":"Temporarily unavailable",{named}"code":"unavailable"}}}}"#
        );
        let expected: Vec<String> = leaves
            .then(|| "LEAVE post_1".to_owned())
            .into_iter()
            .chain([error])
            .collect();
        assert_eq!(lines, expected);
        assert_eq!(bench.reply(r#"{"type":"ping"}"#), r#"{"type":"pong"}"#);
        bench.finish();
    }
    // Subscribed already: recovery failed, and then there is no subscription any more.
    let mut bench = Bench::new();
    bench.subscribed("post_1");
    bench.ask(r#"{"type":"subscribe","channel":"post_1","recover":{"epoch":"e1","offset":1}}"#);
    bench.answer(Answer::Failed { code: "internal" });
    assert!(bench.session.subscriptions().is_empty());
    bench.finish();
}

#[test]
fn published_and_history_say_where() {
    let mut bench = Bench::new();
    bench.ask(r#"{"type":"publish","channel":"room_7","event":{"type":"x"},"id":"p"}"#);
    assert_eq!(
        bench.answer(Answer::Published {
            position: Some(at(6))
        }),
        [r#"{"type":"published","id":"p","data":{"channelKey":"room_7","epoch":"e1","offset":6}}"#]
    );
    bench.ask(r#"{"type":"history","channel":"post_1","id":"h"}"#);
    assert_eq!(
        bench.answer(Answer::History {
            position: at(6),
            events: vec![raw(r#"{"_meta":{},"type":"x"}"#)],
        }),
        [
            r#"{"type":"history","id":"h","data":{"channelKey":"post_1","epoch":"e1","events":[{"_meta":{},"type":"x"}]}}"#
        ]
    );
}

#[test]
fn a_newer_token_of_the_same_user_takes_over_and_no_other() {
    let mut bench = Bench::new();
    let refresh = r#"{"type":"refresh","token":"a.b.c","id":9}"#;
    let refused =
        r#"{"type":"error","id":9,"data":{"message":"Invalid token","code":"invalid_token"}}"#;
    assert_eq!(bench.ask(refresh), ["CALL verify a.b.c"]);
    assert_eq!(
        bench.answer(Answer::Verified(Err("expired"))),
        ["AUTH FAILURE expired", refused]
    );
    for other in ["u2", "u", "u11", "U1", "u1 "] {
        bench.ask(refresh);
        let stranger = identity(other, TOKEN_MS * 2, &[]);
        assert_eq!(
            bench.answer(Answer::Verified(Ok(stranger))),
            ["AUTH FAILURE other_user", refused]
        );
        assert_eq!(&*bench.session.identity().user_id, "u1");
    }
    bench.ask(refresh);
    let newer = identity("u1", TOKEN_MS * 2, &["room_7", "team_a*"]);
    assert_eq!(
        bench.answer(Answer::Verified(Ok(newer))),
        [r#"{"type":"refreshed","id":9,"data":{"expiresAt":"2026-11-23T05:05:06.789Z"}}"#]
    );
    bench.finish();
}

#[test]
fn what_a_newer_token_no_longer_names_ends() {
    let mut bench = Bench::new();
    for key in ["room_7", "post_1", "team_abc"] {
        bench.subscribed(key);
    }
    bench.ask(r#"{"type":"refresh","token":"t","id":9}"#);
    let newer = identity("u1", TOKEN_MS * 2, &["team_a*", "room_8"]);
    assert_eq!(
        bench.answer(Answer::Verified(Ok(newer))),
        [
            r#"{"type":"refreshed","id":9,"data":{"expiresAt":"2026-11-23T05:05:06.789Z"}}"#,
            "LEAVE room_7",
            r#"{"type":"unsubscribed","data":{"channel":"room_7","channelKey":"room_7"}}"#,
        ]
    );
    assert!(
        bench
            .reply(r#"{"type":"subscribe","channel":"room_7"}"#)
            .contains("access_denied")
    );
    bench.subscribed("room_8");
    bench.finish();
}

#[test]
fn an_end_in_the_middle_of_a_call_takes_the_joined_channel_back() {
    // A member without a connection would hold events back for ever, for whoever has its slot next.
    for (last, line) in [
        (Input::End(Close::TooSlow), "CLOSE 4102"),
        (Input::End(Close::Resync), "CLOSE 4103"),
        (Input::Deadline, "CLOSE 4101"),
    ] {
        let mut bench = Bench::new();
        bench.subscribed("post_1");
        bench.ask(r#"{"type":"subscribe","channel":"post_2"}"#);
        bench.wait(TOKEN_MS);
        assert_eq!(bench.handle(last), ["LEAVE post_2", line]);
        bench.finish();
    }
    // The socket is gone and nobody told the session.
    let mut bench = Bench::new();
    bench.subscribed("post_1");
    bench.ask(r#"{"type":"subscribe","channel":"post_2"}"#);
    bench.finish();
}
