//! What a client sends over its socket: what is taken is JSON, and what is published comes out as it was, with
//! `_meta` in front.
#![no_main]

use bytes::BytesMut;
use fanfare::protocol::{ChannelKey, Event, Request, depth, shape};
use serde_json::{Value, json};

libfuzzer_sys::fuzz_target!(|text: &str| {
    let _ = (shape::shape(text, Some("u1")), depth::is_too_deep(text));
    let value = serde_json::from_str::<Value>(text);
    if Request::parse(text).command.is_ok() {
        // serde_json's own limit on depth aside.
        assert!(depth::is_too_deep(text) || value.as_ref().is_ok_and(Value::is_object));
    }
    let Ok(event) = Event::parse(text, 1 << 16) else {
        return;
    };
    let before = value.expect("an event is JSON");
    assert!(before["type"].is_string());
    let mut told = BytesMut::new();
    let key = ChannelKey::parse("post_42", 255).expect("it is one");
    event.write_with_meta(&key, None, &mut told);
    let mut after: Value = serde_json::from_slice(&told).expect("it is JSON still");
    let meta = after
        .as_object_mut()
        .and_then(|members| members.remove("_meta"));
    assert_eq!(meta, Some(json!({"channel": "post_42"})));
    assert_eq!(before, after);
});
