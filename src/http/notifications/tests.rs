//! What bodies and queries mean.

use super::*;

fn new(body: Value) -> Result<NewNotification, (u16, &'static str)> {
    serde_json::from_str::<NewBody>(&body.to_string())
        .unwrap()
        .check(255, 2_048)
        .map_err(|error| (error.status.as_u16(), error.code))
}

fn complete() -> Value {
    json!({"userId": "u1", "type": "T", "title": "t", "message": "m"})
}

#[test]
fn a_notification_needs_its_four_strings() {
    assert!(new(complete()).is_ok());
    for name in ["userId", "type", "title", "message"] {
        let number = (name != "userId").then(|| json!(7));
        let bad = [Value::Null, json!(""), json!(7.5), json!({}), json!(["x"])];
        for bad in bad.into_iter().chain(number) {
            let mut body = complete();
            body[name] = bad;
            assert_eq!(new(body).unwrap_err(), (400, "missing_fields"), "{name}");
        }
        let mut body = complete();
        body.as_object_mut().unwrap().remove(name);
        assert_eq!(new(body).unwrap_err(), (400, "missing_fields"), "{name}");
    }
    let mut body = complete();
    body["userId"] = json!(7);
    assert_eq!(new(body).unwrap().user_id, "7");
    let mut body = complete();
    body["userId"] = json!("u\n1");
    assert_eq!(new(body).unwrap_err(), (400, "invalid_user_id"));
    let mut body = complete();
    body["userId"] = json!("u".repeat(255));
    assert_eq!(new(body).unwrap_err(), (400, "invalid_user_id"));
}

#[test]
fn metadata_is_any_json_and_kept_to_the_byte() {
    let text =
        r#"{"userId":"u","type":"T","title":"t","message":"m","metadata":{"b" : 1.50,"a":[ ]}}"#;
    let new_body: NewBody = serde_json::from_str(text).unwrap();
    let kept = new_body.check(255, 2_048).unwrap().metadata.unwrap();
    assert_eq!(kept.get(), r#"{"b" : 1.50,"a":[ ]}"#);
    for (metadata, code) in [
        (json!(null), None),
        (json!([]), None),
        (json!("x"), None),
        (json!(1), None),
        (json!(false), None),
        (json!({"x": "x".repeat(2_048)}), Some("event_too_large")),
    ] {
        let mut body = complete();
        body["metadata"] = metadata;
        assert_eq!(new(body).err().map(|(_, code)| code), code);
    }
}

#[test]
fn what_is_accepted_fits_into_an_event() {
    let mut body = complete();
    body["message"] = json!("\u{1}".repeat(400));
    assert_eq!(new(body).unwrap_err(), (413, "event_too_large"));
}

#[test]
fn marks_are_read_from_either_body() {
    let patch = |body: Value| {
        let mark = serde_json::from_value::<PatchBody>(body).unwrap().mark();
        mark.map(|mark| format!("{mark:?}"))
            .map_err(|error| error.code)
    };
    let one = |is_read| {
        format!(
            "{:?}",
            ReadMark::One {
                id: "n".into(),
                is_read
            }
        )
    };
    assert_eq!(
        patch(json!({"notificationId": "n", "isRead": false})),
        Ok(one(false))
    );
    assert_eq!(patch(json!({"notificationId": "n"})), Ok(one(true)));
    assert_eq!(
        patch(json!({"markAllAsRead": true, "notificationId": "n"})),
        Ok("All".into())
    );
    assert_eq!(
        patch(json!({"markAllAsRead": false})),
        Err("missing_fields")
    );
    assert_eq!(patch(json!({"notificationId": 7})), Err("missing_fields"));
    assert_eq!(
        patch(json!({"notificationId": "n", "isRead": "yes"})),
        Err("invalid_body")
    );

    let put = |body: Value| {
        let mark = serde_json::from_value::<PutBody>(body).unwrap().mark();
        mark.map(|mark| format!("{mark:?}"))
            .map_err(|error| error.code)
    };
    assert_eq!(
        put(json!({"notificationIds": ["a"]})),
        Ok(r#"Many(["a"])"#.into())
    );
    assert_eq!(put(json!({"markAllAsRead": true})), Ok("All".into()));
    assert_eq!(put(json!({"notificationIds": "a"})), Err("missing_fields"));
    assert_eq!(
        put(json!({"notificationIds": ["a", 1]})),
        Err("invalid_body")
    );
    assert_eq!(
        put(json!({"notificationIds": vec!["a"; 1_001]})),
        Err("too_many_ids")
    );
    assert_eq!(put(json!({})), Err("missing_fields"));
}

#[test]
fn a_page_is_1_to_100() {
    let limit = |text: &str| {
        page_query(None, Some(text.into()), None)
            .map(|query| query.limit)
            .map_err(|error| error.code)
    };
    assert_eq!(limit("1"), Ok(1));
    assert_eq!(limit("100"), Ok(100));
    assert_eq!(limit(""), Ok(20));
    for bad in ["0", "101", "-1", "ten", "1.5", "99999999999999999999"] {
        assert_eq!(limit(bad), Err("invalid_limit"), "{bad}");
    }
    let cursor = "00ab00ab00ab00ab";
    let query = page_query(Some("true".into()), None, Some(cursor.into())).unwrap();
    assert!(query.unread_only && query.limit == 20 && query.cursor.as_deref() == Some(cursor));
    assert!(
        !page_query(Some("false".into()), None, None)
            .unwrap()
            .unread_only
    );
    for (text, expected) in [
        ("True", Ok(true)),
        ("1", Ok(true)),
        ("yes", Ok(true)),
        ("FALSE", Ok(false)),
        ("0", Ok(false)),
        ("No", Ok(false)),
        ("", Ok(false)),
        ("on", Err("invalid_unread_only")),
        ("true,", Err("invalid_unread_only")),
    ] {
        let query = page_query(Some(text.into()), None, None);
        let unread_only = query.map(|query| query.unread_only);
        assert_eq!(unread_only.map_err(|error| error.code), expected, "{text}");
    }
    let first = page_query(None, None, Some(String::new())).unwrap();
    assert_eq!(first.cursor, None);
    for bad in ["c", "bogus", "00ab00ab00ab00ag", "00ab00ab00ab00ab0"] {
        let refused = page_query(None, None, Some(bad.into())).unwrap_err();
        assert_eq!(refused.code, "invalid_cursor", "{bad}");
    }
}
