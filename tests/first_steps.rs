//! The first five minutes of a user: sign in, open a socket, hear of an event, survive a `kill -9`.

mod support;

use serde_json::json;
use support::{Dice, Server};

#[test]
fn a_wallet_signs_in_and_hears_what_the_backend_publishes() {
    let server = Server::start(&[]);
    let wallet = Dice::from_environment().wallet();

    let signed_in = server
        .json("POST", "/api/auth/wallet", &[], &json!({"wallet": wallet}))
        .expect(200)
        .json();
    assert_eq!(signed_in["success"], true);
    assert_eq!(signed_in["expiresIn"], "30m");
    assert_eq!(signed_in["user"]["wallet"], wallet);
    let token = signed_in["token"].as_str().unwrap();

    let bearer = format!("Bearer {token}");
    let verified = server
        .http("GET", "/api/auth/wallet", &[("Authorization", &bearer)], "")
        .expect(200)
        .json();
    assert_eq!(verified["valid"], true);
    assert_eq!(verified["userId"], signed_in["user"]["id"]);

    let mut client = server
        .connect_with(&format!("/ws?token={token}"), &[])
        .unwrap()
        .greeted();
    assert_eq!(client.greeting["data"]["userId"], signed_in["user"]["id"]);
    client.send(&json!({"type": "ping"}));
    assert_eq!(client.next(), json!({"type": "pong"}));
    let subscribed = client.subscribe(json!({"type": "post", "postId": "42"}));
    assert_eq!(subscribed["data"]["channelKey"], "post_42");

    let published = server
        .as_backend(
            "POST",
            "/api/publish",
            &json!({"channel": "post_42", "event": {"type": "post_liked", "likes": 7}}),
        )
        .expect(200)
        .json();
    let event = client.next_of("post_liked");
    assert_eq!(event["likes"], 7);
    assert_eq!(event["_meta"]["channel"], "post_42");
    assert_eq!(event["_meta"]["offset"], published["offset"]);
    client.close();
}

#[test]
fn what_was_acknowledged_survives_a_kill() {
    let mut server = Server::start(&[]);
    let added = server
        .as_backend(
            "POST",
            "/api/user/notifications",
            &json!({"userId": "u1", "type": "like", "title": "Hi", "message": "Somebody likes it"}),
        )
        .expect(201)
        .json();

    server.kill();
    server.restart();

    let listed = server
        .as_user("u1", "GET", "/api/user/notifications", &json!(null))
        .expect(200)
        .json();
    assert_eq!(listed["unreadCount"], 1);
    assert_eq!(listed["notifications"], json!([added["notification"]]));
    let mut client = server.connect("u1");
    client.subscribe("notifications");
    let unread = client.next_of("unread_notifications");
    assert_eq!(unread["data"]["count"], 1);
}
