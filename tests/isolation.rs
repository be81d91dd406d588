//! Two users never see each other's notifications or feed, whatever they try.

#![allow(clippy::unwrap_used)] // clippy knows the tests, not what they share

mod support;

use serde_json::{Value, json};
use support::{Client, Dice, Server};

/// Users whose names are near each other, in ways that have gone wrong somewhere before.
const USERS: &[&str] = &[
    "u",
    "u_1",
    "u_1*",
    "U_1",
    "u_10",
    "u_1_",
    "_u_1",
    "u-1",
    "u%5F1",
    "u%2F1",
    "u/1",
    "u.1",
    "u 1",
    " u_1",
    "u_1 ",
    "*",
    "_",
    "u_1,u",
    "u_1;u",
    "u_1\"",
    "u_1'--",
    "u_\u{0661}",
    "\u{ff55}_1",
    "\u{fe}_1",
    "u\u{301}_1",
    "\u{fa}_1",
    "../u_1",
    "notifications_u_1",
    "feed_u_1",
    "null",
    "1",
    "u_1?a=b",
    "u_1#",
    "\u{441}\u{443}",
    "cy",
];

const VICTIM: &str = "u_1";
const PATH: &str = "/api/user/notifications";

/// Every way to write that somebody's channel of this type is meant.
fn spellings(kind: &str, user: &str) -> Vec<Value> {
    vec![
        json!(format!("{kind}_{user}")),
        json!({"type": kind, "userId": user}),
        json!({"type": kind, "id": user}),
        json!({"type": kind, "userId": user, "id": "somebody"}),
        json!({"id": user, "userId": user, "type": kind}),
        json!(format!("{kind}_{user}*")),
        json!(format!("{kind}_*")),
        json!(format!("{kind}_")),
        json!(format!(" {kind}_{user}")),
        json!(format!("{kind}_{user} ")),
        json!(format!("{kind}__{user}")),
        json!(format!("{kind}-{user}")),
        json!(format!("{kind}:{user}")),
        json!(format!("{}_{user}", kind.to_uppercase())),
        json!({"type": format!("{kind}_{user}")}),
        json!({"type": kind, "userId": [user]}),
        json!({"type": kind, "userId": {"id": user}}),
        json!({"type": kind, "userId": null, "id": user}),
        json!({"type": kind, "userId": "", "id": user}),
        json!([kind, user]),
        json!([format!("{kind}_{user}")]),
        json!({"type": "creator", "id": format!("../{kind}_{user}")}),
        json!({"type": "post", "postId": user, "userId": user}),
    ]
}

#[test]
fn every_user_hears_of_their_own_and_of_nothing_else() {
    let server = Server::start(&[("limits.commands_per_second", "0")]);
    let mut clients: Vec<(&str, Client)> = USERS
        .iter()
        .map(|user| {
            let mut client = server.connect(user);
            assert_eq!(client.greeting["data"]["userId"], *user);
            let own = client.subscribe("notifications");
            assert_eq!(own["data"]["channelKey"], format!("notifications_{user}"));
            let own = client.subscribe(json!({"type": "feed", "userId": user}));
            assert_eq!(own["data"]["channelKey"], format!("feed_{user}"));
            (*user, client)
        })
        .collect();
    // All sockets try to get at everybody else's, by key and as objects.
    for (user, client) in &mut clients {
        for other in USERS.iter().filter(|other| *other != user) {
            for kind in ["notifications", "feed"] {
                for command in ["subscribe", "history"] {
                    for channel in [
                        json!(format!("{kind}_{other}")),
                        json!({"type": kind, "userId": other}),
                    ] {
                        client.send(&json!({"type": command, "channel": channel}));
                        let answer = client.next();
                        assert_eq!(
                            answer["data"]["code"], "access_denied",
                            "{user} at {channel}"
                        );
                    }
                }
            }
        }
    }
    for user in USERS {
        server.notify(user, &format!("only for {user}"));
        server.publish(&format!("feed_{user}"), json!({"type": "fed", "of": user}));
    }
    for (user, client) in &mut clients {
        let heard = client.next();
        assert_eq!(heard["userId"], *user);
        assert_eq!(heard["notification"]["title"], format!("only for {user}"));
        assert_eq!(heard["unreadCount"], 1);
        assert_eq!(client.next()["of"], *user);
    }
    for (_, client) in &mut clients {
        client.quiet(5);
    }
    for user in USERS {
        let page = server
            .as_user(user, "GET", PATH, &json!(null))
            .expect(200)
            .json();
        assert_eq!(page["unreadCount"], 1, "{user}");
        assert_eq!(page["notifications"].as_array().unwrap().len(), 1, "{user}");
        assert_eq!(
            page["notifications"][0]["title"],
            format!("only for {user}")
        );
    }
    let channels = &server.stats()["connectionsByChannel"];
    assert_eq!(channels.as_object().unwrap().len(), USERS.len() * 2);
}

#[test]
fn no_spelling_opens_another_users_channel() {
    let server = Server::start(&[("limits.commands_per_second", "0")]);
    let secret = server.notify(VICTIM, "a secret");
    server.publish("feed_u_1", json!({"type": "fed", "what": "a secret"}));
    let mut intruder = server.connect("u_2");
    let mut answers = 0;
    for kind in ["notifications", "feed"] {
        for channel in spellings(kind, VICTIM) {
            for command in ["subscribe", "history", "publish", "unsubscribe"] {
                intruder.send(
                    &json!({"type": command, "channel": channel, "event": {"type": "x"},
                    "recover": {"epoch": "e", "offset": 0}}),
                );
                answers += 1;
            }
        }
    }
    // Some of these are channels that anybody may have, such as a post; none is the victim's.
    for _ in 0..answers {
        let answer = intruder.next();
        let key = answer["data"]["channelKey"].as_str().unwrap_or_default();
        if answer["type"] == "unsubscribed" {
            continue;
        }
        assert!(key != "notifications_u_1" && key != "feed_u_1", "{answer}");
        assert!(!answer.to_string().contains("a secret"), "{answer}");
        assert!(["error", "subscribed", "history"].contains(&answer["type"].as_str().unwrap()));
    }
    server.notify(VICTIM, "another secret");
    server.publish("feed_u_1", json!({"type": "fed", "what": "another secret"}));
    intruder.quiet(100);

    // A subscription does not change hands with a token.
    intruder.send(&json!({"type": "refresh", "token": server.token(VICTIM)}));
    assert_eq!(intruder.next()["data"]["code"], "invalid_token");

    // Nor does what a socket with bad credentials asks for.
    let mut nobody = server.connect_with("/ws?token=bad", &[]).unwrap();
    let _ = nobody.try_send(tungstenite::Message::text(
        r#"{"type":"subscribe","channel":"notifications_u_1"}"#,
    ));
    nobody.expect_disconnect(1008, "Unauthorized");

    let page = server
        .as_user(VICTIM, "GET", PATH, &json!(null))
        .expect(200)
        .json();
    assert_eq!(page["notifications"][1], secret, "and it is as it was");
}

#[test]
fn a_users_id_may_look_like_a_claim_and_is_none() {
    let server = Server::start(&[("channels.room.subscribe", "token")]);
    // `token` rules cannot be widened by the name of a user, and personal channels not by a claim.
    let mut claims = server.claims("u_2");
    claims["channels"] = json!(["notifications_u_1", "feed_u_1", "notifications_*", "*"]);
    let path = format!("/ws?token={}", server.token_with(&claims));
    let mut intruder = server.connect_with(&path, &[]).unwrap().greeted();
    for channel in ["notifications_u_1", "feed_u_1"] {
        for command in ["subscribe", "history"] {
            intruder.send(&json!({"type": command, "channel": channel}));
            assert_eq!(intruder.next()["data"]["code"], "access_denied");
        }
    }
    intruder.subscribe("room_1");
}

#[test]
fn http_serves_nobody_elses() {
    let server = Server::start(&[]);
    let mut victim = server.connect(VICTIM);
    victim.subscribe("notifications");
    let ids: Vec<String> = (0..5)
        .map(|n| {
            let added = server.notify(VICTIM, &format!("a secret {n}"));
            victim.next_of("notification");
            added["id"].as_str().unwrap().to_string()
        })
        .collect();
    let state = || {
        server
            .as_user(VICTIM, "GET", &format!("{PATH}?limit=100"), &json!(null))
            .expect(200)
            .json()
    };
    let before = state();
    let first = server
        .as_user(VICTIM, "GET", &format!("{PATH}?limit=2"), &json!(null))
        .expect(200)
        .json();
    let cursor = first["nextCursor"].as_str().unwrap();
    let id = &ids[0];

    for intruder in USERS.iter().filter(|user| **user != VICTIM) {
        let ask = |method: &str, path: &str, body: Value| {
            let reply = server.as_user(intruder, method, path, &body);
            assert!(
                !reply.text().contains("a secret"),
                "{intruder}: {method} {path}"
            );
            reply
        };
        let page = ask("GET", &format!("{PATH}?cursor={cursor}"), json!(null))
            .expect(200)
            .json();
        assert_eq!(page["notifications"], json!([]));
        assert_eq!(page["unreadCount"], 0);
        for query in [
            format!("userId={VICTIM}"),
            format!("user={VICTIM}"),
            format!("wallet={VICTIM}"),
            format!("id={id}"),
            format!("cursor={id}"),
            "cursor=ffffffffffffffff".to_string(),
            "cursor=0000000000000000".to_string(),
            "cursor=%00".to_string(),
            "unreadOnly=true&limit=100".to_string(),
        ] {
            let reply = ask("GET", &format!("{PATH}?{query}"), json!(null));
            if reply.status == 200 {
                assert_eq!(
                    reply.json()["notifications"],
                    json!([]),
                    "{intruder}: {query}"
                );
            }
        }
        for is_read in [true, false] {
            let body = json!({"notificationId": id, "isRead": is_read, "userId": VICTIM});
            let reply = ask("PATCH", PATH, body).expect(404).json();
            assert_eq!(reply["error"], "Notification not found");
        }
        ask("PUT", &format!("{PATH}/{id}/read"), json!(null)).expect(404);
        let reply = ask("PUT", PATH, json!({"notificationIds": ids}))
            .expect(200)
            .json();
        assert_eq!(reply["unreadCount"], 0);
        let reply = ask("DELETE", &format!("{PATH}?id={id}"), json!(null));
        if reply.status == 200 {
            assert_eq!(reply.json()["clearedCount"], 0);
        }
        ask("PATCH", PATH, json!({"markAllAsRead": true})).expect(200);
        ask("PUT", PATH, json!({"markAllAsRead": true})).expect(200);
        ask("DELETE", PATH, json!(null)).expect(200);
        ask("DELETE", &format!("{PATH}/clear"), json!(null)).expect(200);
        // Only backends add.
        ask(
            "POST",
            PATH,
            json!({"userId": VICTIM, "type": "x", "title": "t", "message": "m"}),
        )
        .expect(401);
    }
    assert_eq!(state(), before, "nothing was changed");
    victim.quiet(100);
}

#[test]
fn what_a_request_claims_beside_its_token_does_not_count() {
    let server = Server::start(&[("auth.legacy_wallet_identity", "true")]);
    let mut dice = Dice::from_environment();
    let wallet = dice.wallet();
    let user = json!({"id": VICTIM, "wallet": wallet});
    server.as_backend("PUT", "/api/users", &user).expect(200);
    server.notify(VICTIM, "a secret");
    let bearer = format!("Bearer {}", server.token("u_2"));
    let path = format!("{PATH}?wallet={wallet}");
    let headers = [
        ("Authorization", bearer.as_str()),
        ("x-user-wallet", &wallet),
    ];
    let page = server.http("GET", &path, &headers, "").expect(200).json();
    assert_eq!(page["notifications"], json!([]));
    // A bad token does not fall through to the wallet.
    let headers = [
        ("Authorization", "Bearer bad"),
        ("x-user-wallet", wallet.as_str()),
    ];
    server.http("GET", &path, &headers, "").expect(401);
    // Without a token the switch makes the wallet count, which is what its warning is about.
    let page = server
        .http("GET", PATH, &[("x-user-wallet", &wallet)], "")
        .expect(200)
        .json();
    assert_eq!(page["unreadCount"], 1);

    // Switched off, which is the default, it never does.
    let server = Server::start(&[]);
    server.as_backend("PUT", "/api/users", &user).expect(200);
    server.notify(VICTIM, "a secret");
    server
        .http("GET", PATH, &[("x-user-wallet", &wallet)], "")
        .expect(401);
    server.http("GET", &path, &[], "").expect(401);
}
