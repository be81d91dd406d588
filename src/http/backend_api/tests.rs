//! What backends' bodies mean.

use serde_json::json;

use super::*;
use crate::http::tests::config;
use crate::protocol::{Epoch, Position};

fn code<T>(outcome: Result<T, ApiError>) -> Result<T, (u16, &'static str)> {
    outcome.map_err(|error| (error.status.as_u16(), error.code))
}

#[test]
fn channels_are_those_of_configured_types() {
    let config = config();
    let key = |named: Value| code(addressee(&named, &config)).map(|key| key.to_string());
    assert_eq!(
        key(json!({"type": "post", "postId": 42})),
        Ok("post_42".into())
    );
    assert_eq!(
        key(json!("notifications_u1")),
        Ok("notifications_u1".into())
    );
    for bad in [
        json!(null),
        json!("post"),
        json!("notifications"),
        json!({"type": "feed"}),
        json!("chat_1"),
        json!({"id": "x"}),
        json!(format!("post_{}", "x".repeat(255))),
    ] {
        assert_eq!(key(bad.clone()), Err((400, "invalid_channel")), "{bad}");
    }
    let told = addressee(&json!("chat_1"), &config).unwrap_err().error;
    assert!(
        told.contains("chat") && told.contains("notifications, post"),
        "{told}"
    );
}

#[test]
fn a_broadcast_is_checked_whole_and_names_each_channel_once() {
    let config = config();
    let keys = |named: Value| code(addressees(Some(named), &config)).map(|keys| keys.len());
    assert_eq!(
        keys(json!(["post_1", {"type": "post", "postId": 1}, "post_2"])),
        Ok(2)
    );
    assert_eq!(
        keys(json!(["post_1", "chat_1"])),
        Err((400, "invalid_channel"))
    );
    assert_eq!(keys(json!([])), Err((400, "missing_fields")));
    assert_eq!(keys(json!("post_1")), Err((400, "missing_fields")));
    let many: Vec<String> = (0..=MAX_CHANNELS).map(|n| format!("post_{n}")).collect();
    assert_eq!(keys(json!(many[..MAX_CHANNELS])), Ok(MAX_CHANNELS));
    assert_eq!(keys(json!(many)), Err((400, "too_many_channels")));
}

#[test]
fn events_are_taken_to_the_byte_or_not_at_all() {
    let config = config();
    let parse = |json: &str| {
        let raw: &RawValue = serde_json::from_str(json).unwrap();
        code(event(Some(raw), &config)).map(|event| event.as_bytes().clone())
    };
    assert_eq!(
        parse(r#"{"type":"x", "n":1.50}"#).unwrap(),
        r#"{"type":"x", "n":1.50}"#
    );
    for bad in ["[]", "{}", r#"{"type":1}"#, r#"{"type":"x","_meta":{}}"#] {
        assert_eq!(parse(bad), Err((400, "invalid_event")), "{bad}");
    }
    let large = format!(r#"{{"type":"x","d":"{}"}}"#, "d".repeat(65_536));
    assert_eq!(parse(&large), Err((413, "event_too_large")));
    assert_eq!(
        code(event(None, &config)).unwrap_err(),
        (400, "invalid_event")
    );
}

#[test]
fn a_key_of_one_route_or_channel_is_not_that_of_another() {
    let config = config();
    let post = ChannelKey::parse("post_1", 255).unwrap();
    let event = Event::parse(r#"{"type":"x"}"#, 100).unwrap();
    let key = |route, key| {
        publication(route, &post, event.clone(), key, &config.channels).idempotency_key
    };
    assert_eq!(key("publish", None), None);
    assert_ne!(key("publish", Some("k")), key("broadcast", Some("k")));
    assert_ne!(key("publish", Some("k")), key("publish", Some("l")));
}

#[test]
fn where_it_stands_is_told_only_with_history() {
    let post = ChannelKey::parse("post_1", 255).unwrap();
    let mut published = Published {
        position: Some(Position {
            epoch: Epoch::new("e1"),
            offset: 7,
        }),
        repeated: false,
    };
    let view = |published: &Published| {
        serde_json::to_value(PublishedView::of(true, &post, published)).unwrap()
    };
    assert_eq!(
        view(&published),
        json!({"success": true, "channelKey": "post_1", "epoch": "e1", "offset": 7})
    );
    published.position = None;
    assert_eq!(
        view(&published),
        json!({"success": true, "channelKey": "post_1"})
    );
}

#[test]
fn users_are_checked() {
    let check = |body: Value| {
        code(serde_json::from_value::<UserBody>(body).unwrap().check(255))
            .map(|(id, change)| (id, change.wallet.is_some(), change.nickname))
    };
    let wallet = "So11111111111111111111111111111111111111112";
    assert_eq!(
        check(json!({"id": "u1", "wallet": wallet, "nickname": "Ann"})),
        Ok(("u1".into(), true, Some("Ann".into())))
    );
    assert_eq!(
        check(json!({"id": "u1", "wallet": null})),
        Ok(("u1".into(), false, None))
    );
    assert_eq!(check(json!({})), Err((400, "missing_fields")));
    assert_eq!(check(json!({"id": 7})).unwrap().0, "7");
    assert_eq!(check(json!({"id": 7.5})), Err((400, "missing_fields")));
    assert_eq!(
        check(json!({"id": "u\u{0}"})),
        Err((400, "invalid_user_id"))
    );
    assert_eq!(
        check(json!({"id": "u1", "wallet": "no"})),
        Err((400, "invalid_wallet"))
    );
    assert_eq!(
        check(json!({"id": "u1", "nickname": "a\nb"})),
        Err((400, "invalid_nickname"))
    );
    assert_eq!(
        check(json!({"id": "u1", "nickname": "n".repeat(256)})),
        Err((400, "invalid_nickname"))
    );
}

#[tokio::test]
async fn what_is_awaited_together_is_under_way_together() {
    // Each waits for all others to have begun.
    let begun = tokio::sync::Barrier::new(AT_ONCE);
    let waiters = (0..AT_ONCE).map(|n| {
        let begun = &begun;
        async move {
            begun.wait().await;
            n
        }
    });
    assert_eq!(together(waiters).await, (0..AT_ONCE).collect::<Vec<_>>());
}
