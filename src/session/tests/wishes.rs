//! What the application has to allow first.

use super::super::*;
use super::bench::{Bench, at};

const DENIED: &str = r#"{"type":"error","data":{"message":"Access denied to channel","channel":"gate_1","code":"access_denied"}}"#;

#[test]
fn nothing_is_done_before_the_application_has_allowed_it() {
    let mut bench = Bench::new();
    assert_eq!(
        bench.ask(r#"{"type":"subscribe","channel":"gate_1"}"#),
        ["CALL authorize subscribe gate_1"]
    );
    assert_eq!(
        bench.answer(Answer::Authorized(true)),
        ["JOIN gate_1", "CALL subscribe gate_1 history"]
    );
    bench.answer(Answer::Subscribed {
        position: Some(at(1)),
        missed: None,
        unread: None,
    });
    assert_eq!(bench.session.subscriptions().len(), 1);
    assert_eq!(
        bench.ask(r#"{"type":"publish","channel":"gate_1","event":{"type":"x"}}"#),
        ["CALL authorize publish gate_1"]
    );
    assert_eq!(
        bench.answer(Answer::Authorized(true)),
        [r#"CALL publish gate_1 kept {"type":"x"}"#]
    );
    bench.answer(Answer::Published { position: None });
    bench.finish();
}

#[test]
fn a_no_ends_every_command_without_a_trace() {
    for (command, action) in [
        (r#"{"type":"subscribe","channel":"gate_1"}"#, "subscribe"),
        (r#"{"type":"history","channel":"gate_1"}"#, "subscribe"),
        (r#"{"type":"presence","channel":"gate_1"}"#, "subscribe"),
        (
            r#"{"type":"publish","channel":"gate_1","event":{"type":"x"}}"#,
            "publish",
        ),
    ] {
        let mut bench = Bench::new();
        let asked = format!("CALL authorize {action} gate_1");
        assert_eq!(bench.ask(command), [asked]);
        assert_eq!(bench.answer(Answer::Authorized(false)), [DENIED]);
        assert!(bench.session.subscriptions().is_empty());
        bench.finish();
    }
}

#[test]
fn what_is_wrong_by_itself_is_not_asked_about() {
    let mut bench = Bench::new();
    let refused = bench.ask(r#"{"type":"publish","channel":"gate_1","event":{}}"#);
    assert!(refused[0].contains("invalid_event"), "{refused:?}");
    let refused = bench.ask(r#"{"type":"presence","channel":"post_1"}"#);
    assert!(refused[0].contains("no_presence"), "{refused:?}");
    bench.finish();
}

#[test]
fn who_is_there_is_told_with_the_count() {
    let mut bench = Bench::new();
    bench.ask(r#"{"type":"presence","id":4,"channel":{"type":"gate","id":1}}"#);
    assert_eq!(
        bench.answer(Answer::Authorized(true)),
        ["CALL presence gate_1"]
    );
    assert_eq!(
        bench.answer(Answer::Presence {
            users: vec!["a".into(), "b".into()],
            count: 7,
        }),
        [
            r#"{"type":"presence","id":4,"data":{"channelKey":"gate_1","users":["a","b"],"count":7}}"#
        ]
    );
    bench.finish();
}
