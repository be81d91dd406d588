//! What a client may say, and what it hears.

use super::super::*;
use super::bench::{Bench, at};

#[test]
fn the_greeting_has_what_the_contract_lists() {
    let mut bench = Bench::new();
    let connection_id = "n1-7".to_owned();
    assert_eq!(
        bench.handle(Input::Opened { connection_id }),
        [
            r#"{"type":"connected","data":{"userId":"u1","message":"Successfully connected to WebSocket server","connectionId":"n1-7","node":"n1","expiresAt":"2026-11-23T04:35:06.789Z"}}"#
        ]
    );
    bench.finish();
}

#[test]
fn a_ping_is_answered_with_its_id_as_it_was_written() {
    let mut bench = Bench::new();
    assert_eq!(bench.reply(r#"{"type":"ping"}"#), r#"{"type":"pong"}"#);
    for id in [
        "7",
        "-1.50e+2",
        r#""a\u0062 \"c""#,
        "\"\"",
        "12345678901234567890",
    ] {
        assert_eq!(
            bench.reply(&format!(r#"{{"id" : {id},"type":"ping"}}"#)),
            format!(r#"{{"type":"pong","id":{id}}}"#)
        );
    }
    for none in ["null", "true", "[1]", r#"{"a":1}"#] {
        assert_eq!(
            bench.reply(&format!(r#"{{"type":"ping","id":{none}}}"#)),
            r#"{"type":"pong"}"#
        );
    }
}

#[test]
fn what_is_no_command_is_said_to_be_none() {
    let mut bench = Bench::new();
    let format =
        r#"{"type":"error","data":{"message":"Invalid message format","code":"invalid_format"}}"#;
    for text in [
        "",
        " ",
        "ping",
        "{",
        "[]",
        "null",
        "7",
        r#""ping""#,
        "{}",
        r#"{"type":7}"#,
        r#"{"type":null}"#,
        r#"[{"type":"ping"}]"#,
        r#"{"type":"ping"} {"type":"ping"}"#,
        r#"{"type":"subscribe"}"#,
        r#"{"type":"subscribe","channel":null}"#,
        r#"{"type":"refresh"}"#,
        r#"{"type":"refresh","token":7}"#,
        r#"{"type":"publish","channel":"live_1"}"#,
        r#"{"type":"publish","event":{"type":"x"}}"#,
        r#"{"type":"subscribe","channel":"post_1","recover":7}"#,
        r#"{"type":"subscribe","channel":"post_1","recover":{"epoch":"e"}}"#,
        r#"{"type":"history","channel":"post_1","limit":"all"}"#,
        r#"{"type":"history","channel":"post_1","before":-1}"#,
    ] {
        assert_eq!(bench.reply(text), format, "{text}");
    }
    assert_eq!(bench.handle(Input::Request(Request::binary())), [format]);
    assert_eq!(
        bench.reply(r#"{"type":"dance","id":"x"}"#),
        r#"{"type":"error","id":"x","data":{"message":"Unknown message type","code":"unknown_type"}}"#
    );
}

#[test]
fn an_error_repeats_a_short_spelling_only() {
    let mut bench = Bench::new();
    let named = |bytes: usize| format!("\"{}\"", "x".repeat(bytes - 2));
    for (bytes, repeated) in [(1_024, true), (1_025, false), (60_000, false)] {
        let channel = named(bytes);
        let reply = bench.reply(&format!(r#"{{"type":"subscribe","channel":{channel}}}"#));
        assert!(reply.contains(r#""code":"invalid_channel""#));
        assert_eq!(reply.contains(&channel), repeated, "{bytes}");
        assert_eq!(reply.contains(r#""channel":"#), repeated, "{bytes}");
    }
}

#[test]
fn a_channel_is_refused_in_the_words_and_the_spelling_of_the_client() {
    let mut bench = Bench::new();
    let commands = [
        ("subscribe", ""),
        ("history", ""),
        ("publish", r#","event":{"type":"x"}"#),
    ];
    for channel in [
        r#"{"type":"feed",  "userId":"u2"}"#,
        r#""feed_u2""#,
        r#""feed_u1x""#,
        r#""feed_u1 ""#,
        r#""notifications_u2""#,
        r#"{"type":"notifications","userId":"u2","id":"u1"}"#,
        r#"{"type":"room","id":"8"}"#,
        r#""team_b""#,
        r#""unheard_1""#,
    ] {
        for (command, rest) in commands {
            let text = format!(r#"{{"type":"{command}","id":1,"channel":{channel}{rest}}}"#);
            assert_eq!(
                bench.reply(&text),
                format!(
                    r#"{{"type":"error","id":1,"data":{{"message":"Access denied to channel","channel":{channel},"code":"access_denied"}}}}"#
                )
            );
        }
    }
    let too_long = format!("\"post_{}\"", "x".repeat(36));
    for channel in [
        "7",
        "[]",
        "{}",
        r#""post""#,
        r#""post_""#,
        r#""_1""#,
        r#""Post_1""#,
        r#"{"type":"post"}"#,
        r#"{"type":"post","postId":1.5}"#,
        r#"{"type":"a_b","id":"1"}"#,
        r#""post_a\n""#,
        &too_long,
    ] {
        for (command, rest) in commands.into_iter().chain([("unsubscribe", "")]) {
            let text = format!(r#"{{"type":"{command}","channel":{channel}{rest}}}"#);
            assert_eq!(
                bench.reply(&text),
                format!(
                    r#"{{"type":"error","data":{{"message":"Invalid channel","channel":{channel},"code":"invalid_channel"}}}}"#
                )
            );
        }
    }
    assert!(bench.session.subscriptions().is_empty());
}

#[test]
fn a_refusal_says_which_channel_it_is_about() {
    let mut bench = Bench::new();
    let long = format!("post_{}", "x".repeat(60));
    let quoted = format!("\"{long}\"");
    let endless = format!("\"{}\"", "x".repeat(1_100));
    for (channel, code, named) in [
        (
            r#"{"type":"feed","userId":"u2"}"#,
            "access_denied",
            Some("feed_u2"),
        ),
        (r#""room_8""#, "access_denied", Some("room_8")),
        (r#""post_a\n""#, "invalid_channel", Some("post_a\n")),
        (r#"{"id": 7}"#, "invalid_channel", Some(r#"{"id": 7}"#)),
        (&quoted, "invalid_channel", Some(&long)),
        (&endless, "invalid_channel", None),
        (
            r#""what-could-be-a-password-of-somebody""#,
            "invalid_channel",
            None,
        ),
    ] {
        bench.ask(&format!(r#"{{"type":"subscribe","channel":{channel}}}"#));
        let (said, about) = bench.refusals.pop().unwrap();
        assert_eq!((said, about.as_deref()), (code, named), "{channel}");
    }
    bench.ask("nonsense");
    assert_eq!(bench.refusals.pop(), Some(("invalid_format", None)));
    // What fails later, too, though its reply does not repeat the channel.
    bench.ask(r#"{"type":"history","channel":"post_1"}"#);
    bench.answer(Answer::Failed { code: "internal" });
    assert_eq!(bench.refusals, [("internal", Some("post_1".into()))]);
    bench.finish();
}

#[test]
fn every_spelling_of_a_channel_is_the_same_channel() {
    for (channel, key) in [
        (r#"{"type":"creator","id":"c1"}"#, "creator_c1"),
        (r#"{"type":"post","postId":"42"}"#, "post_42"),
        (r#"{"type":"post","postId":42}"#, "post_42"),
        (r#""post_42""#, "post_42"),
        (r#"{"type":"room","id":"7"}"#, "room_7"),
        (r#""team_a""#, "team_a"),
        (r#""team_abc""#, "team_abc"),
        (r#"{"type":"feed","userId":"u1"}"#, "feed_u1"),
        (r#"{"type":"feed"}"#, "feed_u1"),
        (r#""feed""#, "feed_u1"),
    ] {
        let mut bench = Bench::new();
        assert_eq!(
            bench.ask(&format!(r#"{{"type":"subscribe","channel":{channel}}}"#)),
            [
                format!("JOIN {key}"),
                format!("CALL subscribe {key} history")
            ]
        );
        bench.finish();
    }
    for channel in [
        r#"{"type":"notifications","userId":"u1"}"#,
        r#"{"type":"notifications"}"#,
        r#""notifications""#,
        r#""notifications_u1""#,
    ] {
        let mut bench = Bench::new();
        assert_eq!(
            bench.ask(&format!(r#"{{"type":"subscribe","channel":{channel}}}"#)),
            [
                "JOIN notifications_u1",
                "CALL subscribe notifications_u1 history unread of u1"
            ]
        );
        bench.finish();
    }
}

#[test]
fn unsubscribing_answers_whether_or_not_there_was_anything_to_leave() {
    let mut bench = Bench::new();
    bench.subscribed("post_1");
    let text = r#"{"type":"unsubscribe","channel":{"type":"post", "postId":1},"id":"z"}"#;
    let reply = r#"{"type":"unsubscribed","id":"z","data":{"channel":{"type":"post", "postId":1},"channelKey":"post_1"}}"#;
    assert_eq!(bench.ask(text), ["LEAVE post_1", reply]);
    assert_eq!(bench.ask(text), [reply]);
    assert_eq!(
        bench.reply(r#"{"type":"unsubscribe","channel":"notifications"}"#),
        r#"{"type":"unsubscribed","data":{"channel":"notifications","channelKey":"notifications_u1"}}"#
    );
    bench.finish();
}

#[test]
fn only_so_many_channels_but_the_same_one_again_and_again() {
    let mut bench = Bench::new();
    for key in ["post_1", "post_2", "post_3"] {
        bench.subscribed(key);
    }
    let one_more = r#"{"type":"subscribe","channel":"post_4"}"#;
    let refused = r#"{"type":"error","data":{"message":"Too many channels","channel":"post_4","code":"limit_reached"}}"#;
    assert_eq!(bench.reply(one_more), refused);
    assert_eq!(
        bench.ask(r#"{"type":"subscribe","channel":"post_2"}"#),
        ["CALL standing post_2"]
    );
    bench.answer(Answer::Subscribed {
        position: Some(at(5)),
        missed: None,
        unread: None,
    });
    assert_eq!(
        bench.ask(r#"{"type":"subscribe","channel":"post_2","recover":{"epoch":"e1","offset":1}}"#),
        [
            "LEAVE post_2",
            "JOIN post_2",
            "CALL subscribe post_2 history from e1:1"
        ]
    );
    bench.answer(Answer::Failed { code: "overloaded" });
    // What failed takes no room.
    bench.subscribed("post_4");
    assert_eq!(
        bench.reply(&one_more.replace("post_4", "post_5")),
        refused.replace("post_4", "post_5")
    );
    bench.ask(r#"{"type":"unsubscribe","channel":"post_1"}"#);
    bench.subscribed("post_5");
    bench.finish();
}

#[test]
fn what_may_be_published_is_an_event_of_bounded_size() {
    let mut bench = Bench::new();
    let publish = |channel: &str, event: &str| {
        format!(r#"{{"type":"publish","channel":"{channel}","event":{event},"id":5}}"#)
    };
    let error = |message: &str, code: &str| {
        format!(
            r#"{{"type":"error","id":5,"data":{{"message":"{message}","channel":"live_1","code":"{code}"}}}}"#
        )
    };
    for event in [
        "7",
        "[]",
        "{}",
        r#"{"type":1}"#,
        r#"{"type":"x","_meta":{}}"#,
    ] {
        assert_eq!(
            bench.reply(&publish("live_1", event)),
            error("Invalid event", "invalid_event")
        );
    }
    let large = format!(r#"{{"type":"{}"}}"#, "x".repeat(90));
    assert_eq!(
        bench.reply(&publish("live_1", &large)),
        error("Event too large", "event_too_large")
    );
    assert_eq!(
        bench.ask(&publish("live_1", r#"{"type":"x", "n":1.0}"#)),
        [r#"CALL publish live_1 passing {"type":"x", "n":1.0}"#]
    );
    bench.answer(Answer::Published { position: None });
    // Who may publish is one rule, who may listen another.
    assert_eq!(
        bench.ask(&publish("box_1", r#"{"type":"x"}"#)),
        [r#"CALL publish box_1 kept {"type":"x"}"#]
    );
    bench.answer(Answer::Published {
        position: Some(at(1)),
    });
    assert!(
        bench
            .reply(r#"{"type":"subscribe","channel":"box_1"}"#)
            .contains("access_denied")
    );
    assert!(
        bench
            .reply(r#"{"type":"history","channel":"box_1"}"#)
            .contains("access_denied")
    );
    assert!(
        bench
            .reply(&publish("post_1", r#"{"type":"x"}"#))
            .contains("access_denied")
    );
}

#[test]
fn history_is_asked_for_in_bounded_pieces() {
    let mut bench = Bench::new();
    for (asked, limit, before) in [
        ("", 100, "None"),
        (r#","limit":7"#, 7, "None"),
        (r#","limit":0"#, 0, "None"),
        (r#","limit":100000,"before":9"#, 100, "Some(9)"),
    ] {
        assert_eq!(
            bench.ask(&format!(
                r#"{{"type":"history","channel":"post_1"{asked}}}"#
            )),
            [format!("CALL history post_1 {limit} before {before}")]
        );
        bench.answer(Answer::Failed { code: "internal" });
    }
    assert_eq!(
        bench.reply(r#"{"type":"history","channel":"live_1"}"#),
        r#"{"type":"error","data":{"message":"The channel keeps no history","channel":"live_1","code":"no_history"}}"#
    );
}
