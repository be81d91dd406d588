//! A user's notifications on all of their sockets. Contract sections 3 and 4.

#![allow(clippy::unwrap_used)] // clippy knows the tests, not what they share

mod support;

use serde_json::{Value, json};
use support::{Client, Server};

fn without_meta(mut event: Value) -> Value {
    event.as_object_mut().unwrap().remove("_meta");
    event
}

#[track_caller]
fn hears(clients: &mut [Client], event: &Value) {
    for client in clients {
        let heard = client.next();
        assert_eq!(heard["_meta"]["channel"], "notifications_u1");
        assert!(heard["_meta"]["offset"].is_u64() && heard["_meta"]["epoch"].is_string());
        assert_eq!(&without_meta(heard), event, "{}", client.tell());
    }
}

#[test]
fn the_twenty_newest_unread_ones_come_with_the_subscription() {
    let server = Server::start(&[]);
    let mut client = server.connect("u1");
    client.subscribe("notifications");
    client.quiet(50);
    let added: Vec<Value> = (0..25)
        .map(|n| server.notify("u1", &n.to_string()))
        .collect();
    let read = json!({"notificationId": added[23]["id"], "isRead": true});
    server
        .as_user("u1", "PATCH", "/api/user/notifications", &read)
        .expect(200);

    for channel in [
        json!("notifications"),
        json!("notifications_u1"),
        json!({"type": "notifications", "userId": "u1"}),
    ] {
        let mut client = server.connect("u1");
        assert_eq!(
            client.subscribe(channel)["data"]["channelKey"],
            "notifications_u1"
        );
        let unread = client.next();
        let mut newest = added.clone();
        newest.remove(23);
        newest.reverse();
        newest.truncate(20);
        assert_eq!(
            unread,
            json!({"type": "unread_notifications", "data": {"notifications": newest, "count": 24}})
        );
        client.quiet(20);
    }
    // Nobody else hears of them, and no other channel brings them.
    let mut other = server.connect("u2");
    other.subscribe("notifications");
    other.quiet(50);
    let mut client = server.connect("u1");
    client.subscribe("feed");
    client.quiet(50);
}

#[test]
fn every_change_reaches_every_socket_of_its_owner() {
    let server = Server::start(&[("server.workers", "3")]);
    let mut clients: Vec<Client> = (0..6).map(|_| server.connect("u1")).collect();
    for client in &mut clients {
        client.subscribe("notifications");
    }
    let mut bystander = server.connect("u1");
    let mut stranger = server.connect("u2");
    stranger.subscribe("notifications");
    let path = "/api/user/notifications";

    let one = server.notify("u1", "one");
    hears(
        &mut clients,
        &json!({"type": "notification", "userId": "u1", "notification": one, "unreadCount": 1}),
    );
    let two = server.notify("u1", "two");
    hears(
        &mut clients,
        &json!({"type": "notification", "userId": "u1", "notification": two, "unreadCount": 2}),
    );
    let read = json!({"notificationId": one["id"], "isRead": true});
    server.as_user("u1", "PATCH", path, &read).expect(200);
    let id_of_one = &one["id"];
    hears(
        &mut clients,
        &json!({"type": "notification_read", "userId": "u1", "notificationId": id_of_one, "unreadCount": 1}),
    );
    // What changes nothing is not told.
    server.as_user("u1", "PATCH", path, &read).expect(200);
    // Of several, each that changed is told by its name.
    let three = server.notify("u1", "three");
    for client in &mut clients {
        client.next();
    }
    let several = json!({"notificationIds": ["unknown", three["id"], one["id"]]});
    server.as_user("u1", "PUT", path, &several).expect(200);
    hears(
        &mut clients,
        &json!({"type": "notification_read", "userId": "u1", "notificationId": three["id"], "unreadCount": 1}),
    );
    let id = two["id"].as_str().unwrap();
    server
        .as_user("u1", "PUT", &format!("{path}/{id}/read"), &json!(null))
        .expect(200);
    hears(
        &mut clients,
        &json!({"type": "notification_read", "userId": "u1", "notificationId": id, "unreadCount": 0}),
    );
    server
        .as_user("u1", "DELETE", &format!("{path}?id={id}"), &json!(null))
        .expect(200);
    hears(
        &mut clients,
        &json!({"type": "notifications_cleared", "userId": "u1", "count": 1, "unreadCount": 0}),
    );
    server
        .as_user("u1", "DELETE", path, &json!(null))
        .expect(200);
    hears(
        &mut clients,
        &json!({"type": "notifications_cleared", "userId": "u1", "count": 2, "unreadCount": 0}),
    );
    server.notify("u1", "four");
    for client in &mut clients {
        client.next();
    }
    let all = json!({"markAllAsRead": true});
    server.as_user("u1", "PATCH", path, &all).expect(200);
    hears(
        &mut clients,
        &json!({"type": "notification_read", "userId": "u1", "notificationId": null, "unreadCount": 0}),
    );
    for client in clients.iter_mut().chain([&mut bystander, &mut stranger]) {
        client.quiet(50);
    }
}

#[test]
fn events_missed_while_away_can_be_recovered_like_any_other() {
    let mut server = Server::start(&[]);
    let mut client = server.connect("u1");
    let at = client.subscribe("notifications")["data"].clone();
    drop(client);
    let added = server.notify("u1", "while away");
    server.kill();
    server.restart();
    let mut client = server.connect("u1");
    client.send(&json!({"type": "subscribe", "channel": "notifications",
        "recover": {"epoch": at["epoch"], "offset": at["offset"]}}));
    assert_eq!(client.next()["data"]["recovered"], true);
    assert_eq!(client.next()["notification"], added);
    let unread = client.next();
    assert_eq!(unread["type"], "unread_notifications");
    assert_eq!(unread["data"]["notifications"], json!([added]));
}
