//! `/api/user/notifications`: every method, by token and by wallet, for one user and never another.

mod support;

use serde_json::{Value, json};
use support::{Dice, Reply, Server};

const PATH: &str = "/api/user/notifications";

fn add(server: &Server, user: &str, title: &str) -> Value {
    let body = json!({"userId": user, "type": "like", "title": title, "message": "m"});
    let reply = server.as_backend("POST", PATH, &body).expect(201).json();
    assert_eq!(reply["success"], true);
    reply["notification"].clone()
}

fn list(server: &Server, user: &str, query: &str) -> Value {
    server
        .as_user(user, "GET", &format!("{PATH}{query}"), &Value::Null)
        .expect(200)
        .json()
}

fn titles(page: &Value) -> Vec<&str> {
    let notifications = page["notifications"].as_array().expect("a list");
    notifications
        .iter()
        .map(|n| n["title"].as_str().expect("a title"))
        .collect()
}

#[test]
fn a_notification_is_stored_whole_and_listed_newest_first() {
    let server = Server::start(&[]);
    let body = r#"{"userId":"u1","type":"NEW","title":"t","message":"m","metadata":{"b":1.50,"a":[null]}}"#;
    let headers = [
        ("X-API-Key", server.api_key()),
        ("Content-Type", "application/json"),
    ];
    let reply = server.http("POST", PATH, &headers, body).expect(201);
    assert!(
        reply.text().contains(r#"{"b":1.50,"a":[null]}"#),
        "{}",
        reply.text()
    );
    let first = reply.json()["notification"].clone();
    let mut names: Vec<&String> = first.as_object().unwrap().keys().collect();
    names.sort();
    assert_eq!(
        names,
        [
            "createdAt",
            "id",
            "isRead",
            "message",
            "metadata",
            "title",
            "type",
            "userId"
        ]
    );
    assert_eq!(first["isRead"], false);

    add(&server, "u1", "second");
    let page = list(&server, "u1", "");
    assert_eq!(titles(&page), ["second", "t"]);
    assert_eq!(page["notifications"][1], first);
    assert_eq!(page["unreadCount"], 2);
    assert_eq!(page["nextCursor"], Value::Null);
}

#[test]
fn pages_follow_each_other_without_a_hole() {
    let server = Server::start(&[]);
    for n in 0..7 {
        add(&server, "u1", &n.to_string());
    }
    let mut seen = Vec::new();
    let mut cursor = String::new();
    for _ in 0..4 {
        let page = list(&server, "u1", &format!("?limit=3&cursor={cursor}"));
        seen.extend(titles(&page).into_iter().map(str::to_owned));
        match page["nextCursor"].as_str() {
            Some(next) => cursor = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(seen, ["6", "5", "4", "3", "2", "1", "0"]);
    for bad in ["limit=0", "limit=101", "limit=x", "unreadOnly=maybe"] {
        server
            .as_user("u1", "GET", &format!("{PATH}?{bad}"), &Value::Null)
            .expect(400);
    }
}

#[test]
fn missing_fields_and_large_ones_are_refused() {
    let server = Server::start(&[("limits.event_bytes", "2KiB")]);
    let complete = json!({"userId": "u1", "type": "like", "title": "t", "message": "m"});
    for name in ["userId", "type", "title", "message"] {
        for bad in [Value::Null, json!(""), json!(1.5)] {
            let mut body = complete.clone();
            body[name] = bad;
            let reply = server.as_backend("POST", PATH, &body).expect(400).json();
            assert_eq!(reply["error"], "Missing required fields");
        }
    }
    let mut large = complete.clone();
    large["message"] = json!("x".repeat(4_000));
    server.as_backend("POST", PATH, &large).expect(413);
    assert_eq!(list(&server, "u1", "")["unreadCount"], 0);
}

#[test]
fn what_applications_write_naturally_is_taken() {
    let server = Server::start(&[]);
    let users = server.as_backend("PUT", "/api/users", &json!({"id": 42}));
    assert_eq!(users.expect(200).json()["user"]["id"], "42");
    for metadata in [json!([1, "x"]), json!("plain"), json!(1.5), json!(false)] {
        let body = json!({"userId": 42, "type": "like", "title": "t", "message": "m", "metadata": metadata});
        server.as_backend("POST", PATH, &body).expect(201);
        let page = list(&server, "42", "?limit=1");
        assert_eq!(page["notifications"][0]["userId"], "42");
        assert_eq!(page["notifications"][0]["metadata"], metadata);
    }
}

#[test]
fn only_backends_may_add() {
    let server = Server::start(&[]);
    let body = json!({"userId": "u1", "type": "like", "title": "t", "message": "m"});
    server.json("POST", PATH, &[], &body).expect(401);
    server.as_user("u1", "POST", PATH, &body).expect(401);
    server
        .json("POST", PATH, &[("X-API-Key", "wrong")], &body)
        .expect(401);
    let in_url = format!("{PATH}?api_key={0}&X-API-Key={0}", server.api_key());
    server.json("POST", &in_url, &[], &body).expect(401);
    let bearer = format!("Bearer {}", server.api_key());
    server
        .json("POST", PATH, &[("Authorization", &bearer)], &body)
        .expect(201);
    assert_eq!(list(&server, "u1", "")["unreadCount"], 1);
}

#[test]
fn an_idempotency_key_adds_once_per_owner_even_over_a_kill() {
    let mut server = Server::start(&[]);
    let send = |server: &Server, user: &str, key: &str| -> Reply {
        let body = json!({"userId": user, "type": "like", "title": "t", "message": "m"});
        let headers = [("X-API-Key", server.api_key()), ("Idempotency-Key", key)];
        server.json("POST", PATH, &headers, &body)
    };
    let first = send(&server, "u1", "k").expect(201).json();
    let again = send(&server, "u1", "k");
    assert_eq!(again.header("Idempotent-Replayed"), Some("true"));
    assert_eq!(again.expect(200).json(), first);
    let of_another = send(&server, "u2", "k");
    assert_eq!(of_another.header("Idempotent-Replayed"), None);
    of_another.expect(201);
    send(&server, "u1", "other").expect(201);
    send(&server, "u1", &"k".repeat(256)).expect(400);
    server.kill();
    server.restart();
    assert_eq!(send(&server, "u1", "k").expect(200).json(), first);
    assert_eq!(list(&server, "u1", "")["unreadCount"], 2);
    // The same key on another route is another key.
    let headers = [("X-API-Key", server.api_key()), ("Idempotency-Key", "k")];
    let body = json!({"channel": "notifications_u1", "event": {"type": "x"}});
    let published = server
        .json("POST", "/api/publish", &headers, &body)
        .expect(200)
        .json();
    assert_eq!(published["channelKey"], "notifications_u1");
}

#[test]
fn a_delete_that_names_its_notification_in_the_body_deletes_no_other() {
    let server = Server::start(&[]);
    let ids: Vec<Value> = (0..3)
        .map(|n| add(&server, "u1", &n.to_string())["id"].clone())
        .collect();
    let delete = |body: &Value| server.as_user("u1", "DELETE", PATH, body);
    let all = json!({"markAllAsRead": true});
    server.as_user("u1", "PATCH", PATH, &all).expect(200);
    let left = || {
        list(&server, "u1", "")["notifications"]
            .as_array()
            .unwrap()
            .len()
    };
    // As the predecessor's browser client does it.
    let one = json!({"notificationId": ids[1]});
    assert_eq!(delete(&one).expect(200).json()["clearedCount"], 1);
    assert_eq!(left(), 2);
    for nonsense in [
        json!({"notificationId": ""}),
        json!({"notificationId": 1}),
        json!({"notificationId": null}),
        json!({"id": ""}),
        json!({"ids": [ids[0]]}),
        json!({"notificationIds": [ids[0]]}),
        json!({"notificationIds": [], "id": ids[0]}),
        json!([]),
    ] {
        delete(&nonsense).expect(400);
    }
    let with = |query: &str| {
        let path = format!("{PATH}?{query}");
        server.as_user("u1", "DELETE", &path, &Value::Null)
    };
    let id = ids[0].as_str().unwrap();
    for query in ["ids=", "notificationIds="].map(|name| format!("{name}{id}")) {
        assert_eq!(with(&query).expect(400).json()["code"], "invalid_body");
    }
    assert_eq!(
        with("notificationId=").expect(400).json()["code"],
        "missing_fields"
    );
    assert_eq!(left(), 2);
    let named = format!("notificationId={id}");
    assert_eq!(with(&named).expect(200).json()["clearedCount"], 1);
    assert_eq!(left(), 1);
    let one = json!({"id": ids[1]});
    assert_eq!(delete(&one).expect(200).json()["clearedCount"], 0);
    assert_eq!(left(), 1);
    add(&server, "u1", "3");
    server.as_user("u1", "PATCH", PATH, &all).expect(200);
    let clear = json!({"clearAll": true});
    assert_eq!(delete(&clear).expect(200).json()["clearedCount"], 2);
    assert_eq!(left(), 0);
}

#[test]
fn marking_and_deleting_count_what_is_left() {
    let server = Server::start(&[]);
    let ids: Vec<Value> = (0..4)
        .map(|n| add(&server, "u1", &n.to_string())["id"].clone())
        .collect();
    let change = |method: &str, path: &str, body: Value| {
        server.as_user("u1", method, path, &body).expect(200).json()
    };
    let marked = |unread: u64| json!({"success": true, "unreadCount": unread});
    let cleared = |count: u64| json!({"success": true, "clearedCount": count});

    let one = json!({"notificationId": ids[0], "isRead": true});
    assert_eq!(change("PATCH", PATH, one.clone()), marked(3));
    assert_eq!(change("PATCH", PATH, one), marked(3));
    let back = json!({"notificationId": ids[0], "isRead": false});
    assert_eq!(change("PATCH", PATH, back), marked(4));
    // An id in a path may be escaped, every character of it.
    let id = ids[0].as_str().unwrap().bytes();
    let escaped: String = id.map(|byte| format!("%{byte:02x}")).collect();
    let read = format!("{PATH}/{escaped}/read");
    assert_eq!(change("PUT", &read, Value::Null), marked(3));
    let read = format!("{PATH}/{}/read", ids[0].as_str().unwrap());
    assert_eq!(change("PUT", &read, Value::Null), marked(3));
    let two = json!({"notificationIds": [ids[0], ids[1], "nobody's"]});
    assert_eq!(change("PUT", PATH, two), marked(2));
    assert_eq!(
        list(&server, "u1", "?unreadOnly=true")["notifications"]
            .as_array()
            .unwrap()
            .len(),
        2
    );

    assert_eq!(
        change("DELETE", &format!("{PATH}/clear"), Value::Null),
        cleared(2)
    );
    let delete = format!("{PATH}?id={}", ids[2].as_str().unwrap());
    assert_eq!(change("DELETE", &delete, Value::Null), cleared(1));
    assert_eq!(change("DELETE", &delete, Value::Null), cleared(0));
    assert_eq!(change("DELETE", PATH, Value::Null), cleared(0));
    assert_eq!(
        change("PATCH", PATH, json!({"markAllAsRead": true})),
        marked(0)
    );
    assert_eq!(change("DELETE", PATH, Value::Null), cleared(1));
    assert_eq!(list(&server, "u1", "")["notifications"], json!([]));
    server
        .as_user("u1", "DELETE", &format!("{PATH}?id="), &Value::Null)
        .expect(400);
    server.as_user("u1", "PATCH", PATH, &json!({})).expect(400);
    server
        .as_user("u1", "PUT", PATH, &json!({"notificationIds": [1]}))
        .expect(400);
}

#[test]
fn no_user_reaches_anothers() {
    let server = Server::start(&[("auth.legacy_wallet_identity", "true")]);
    let theirs = add(&server, "u1", "private");
    let id = theirs["id"].as_str().unwrap();
    let one = json!({"notificationId": id, "isRead": true});
    let refused = server.as_user("u2", "PATCH", PATH, &one).expect(404).json();
    assert_eq!(refused["error"], "Notification not found");
    server
        .as_user("u2", "PUT", &format!("{PATH}/{id}/read"), &Value::Null)
        .expect(404);
    let many = json!({"notificationIds": [id]});
    server.as_user("u2", "PUT", PATH, &many).expect(200);
    server
        .as_user("u2", "PUT", PATH, &json!({"markAllAsRead": true}))
        .expect(200);
    let deleted = server.as_user("u2", "DELETE", &format!("{PATH}?id={id}"), &Value::Null);
    assert_eq!(deleted.expect(200).json()["clearedCount"], 0);
    server
        .as_user("u2", "DELETE", PATH, &Value::Null)
        .expect(200);
    for query in ["?cursor=ffffffffffffffff", "?userId=u1", "?wallet=u1"] {
        assert_eq!(list(&server, "u2", query)["notifications"], json!([]));
    }
    assert_eq!(list(&server, "u1", "")["notifications"], json!([theirs]));
}

#[test]
fn identity_has_an_order_and_a_bad_token_ends_it() {
    let server = Server::start(&[("auth.legacy_wallet_identity", "true")]);
    let mut dice = Dice::from_environment();
    let (ann, ben, nobody) = (dice.wallet(), dice.wallet(), dice.wallet());
    for (id, wallet) in [("ann", &ann), ("ben", &ben)] {
        let user = json!({"id": id, "wallet": wallet});
        server.as_backend("PUT", "/api/users", &user).expect(200);
        add(&server, id, id);
    }
    add(&server, "tom", "tom");
    let get = |headers: &[(&str, &str)], wallet: &str| {
        server.http("GET", &format!("{PATH}?wallet={wallet}"), headers, "")
    };
    let bearer = format!("Bearer {}", server.token("tom"));
    let all = [("Authorization", &bearer[..]), ("x-user-wallet", &ann)];
    assert_eq!(titles(&get(&all, &ben).expect(200).json()), ["tom"]);
    let header = [("x-user-wallet", &ann[..])];
    assert_eq!(titles(&get(&header, &ben).expect(200).json()), ["ann"]);
    assert_eq!(titles(&get(&[], &ben).expect(200).json()), ["ben"]);
    let bad = [("Authorization", "Bearer a.b.c"), ("x-user-wallet", &ann)];
    assert_eq!(get(&bad, &ben).expect(401).json()["error"], "Invalid token");
    assert_eq!(
        get(&[], &nobody).expect(404).json()["error"],
        "User not found"
    );
    get(&[], "rubbish").expect(400);
}

#[test]
fn a_wallet_is_no_identity_unless_switched_on() {
    let server = Server::start(&[]);
    let wallet = Dice::from_environment().wallet();
    let user = json!({"id": "ann", "wallet": wallet});
    server.as_backend("PUT", "/api/users", &user).expect(200);
    let path = format!("{PATH}?wallet={wallet}");
    let refused = server
        .http("GET", &path, &[("x-user-wallet", &wallet)], "")
        .expect(401);
    assert_eq!(refused.json()["error"], "Authentication required");
}

#[test]
fn every_change_reaches_all_sockets_of_its_owner_and_nobody_else() {
    let server = Server::start(&[]);
    let mut sockets = [server.connect("u1"), server.connect("u1")];
    for socket in &mut sockets {
        socket.subscribe("notifications");
    }
    let mut stranger = server.connect("u2");
    stranger.subscribe("notifications");

    let added = add(&server, "u1", "t");
    let user = |method: &str, path: &str, body: Value| {
        server.as_user("u1", method, path, &body).expect(200);
    };
    user(
        "PATCH",
        PATH,
        json!({"notificationId": added["id"], "isRead": true}),
    );
    // Changes nothing, so nobody hears of it.
    user(
        "PATCH",
        PATH,
        json!({"notificationId": added["id"], "isRead": true}),
    );
    user("DELETE", PATH, Value::Null);
    add(&server, "u1", "next");
    for socket in &mut sockets {
        let without_meta = |mut event: Value| {
            event.as_object_mut().unwrap().remove("_meta");
            event
        };
        assert_eq!(
            without_meta(socket.next()),
            json!({"type": "notification", "userId": "u1", "notification": added, "unreadCount": 1})
        );
        assert_eq!(
            without_meta(socket.next()),
            json!({"type": "notification_read", "userId": "u1", "notificationId": added["id"], "unreadCount": 0})
        );
        assert_eq!(
            without_meta(socket.next()),
            json!({"type": "notifications_cleared", "userId": "u1", "count": 1, "unreadCount": 0})
        );
        assert_eq!(socket.next()["notification"]["title"], "next");
    }
    stranger.quiet(200);
}
