//! Something of everything that a server can be told, and whether it still knows it.

use serde_json::{Value, json};

use crate::publish;
use crate::support::{Dice, Reply, Server, SolanaWallet};

pub fn once(server: &Server, path: &str, key: &str, body: &Value) -> Reply {
    let headers = [("X-API-Key", server.api_key()), ("Idempotency-Key", key)];
    server.json("POST", path, &headers, body)
}

/// All of a user's notifications, as the API shows them.
pub fn notes(server: &Server, user: &str) -> Value {
    let path = "/api/user/notifications?limit=100";
    let mut page = server
        .as_user(user, "GET", path, &Value::Null)
        .expect(200)
        .json();
    page.as_object_mut().unwrap().remove("nextCursor");
    page
}

pub fn challenge(server: &Server, wallet: &SolanaWallet) -> Value {
    let body = json!({"wallet": wallet.address()});
    let challenge = server.json("POST", "/api/auth/challenge", &[], &body);
    let message = challenge.expect(200).json()["message"].clone();
    let signature = wallet.sign_text(message.as_str().unwrap());
    json!({"wallet": wallet.address(), "message": message, "signature": signature})
}

pub fn refresh(server: &Server, token: &Value) -> Reply {
    let body = json!({"refreshToken": token});
    server.json("POST", "/api/auth/refresh", &[], &body)
}

/// What a server was told before it moved.
pub struct Told {
    pub wallet: SolanaWallet,
    pub signed_in: Value,
    /// The first refresh token has been used, its successor has not.
    pub refreshed: Value,
    pub challenge: Value,
    revoked: String,
    notes: [Value; 2],
    once: [Value; 2],
    pub chat: Value,
    pub quiet: Value,
}

const PUBLISH: &str = "/api/publish";
pub const NOTIFY: &str = "/api/user/notifications";

fn once_event() -> Value {
    json!({"channel": "chat_once", "event": {"type": "once"}})
}

fn once_note() -> Value {
    json!({"userId": "u2", "type": "like", "title": "once", "message": "m", "metadata": {"a": [1, {}]}})
}

/// Something of every kind.
pub fn tell(server: &Server) -> Told {
    let mut dice = Dice::from_environment();
    let wallet = SolanaWallet::new(&mut dice);
    let user = json!({"id": "u1", "nickname": "ü \"n\"", "wallet": dice.wallet()});
    server.as_backend("PUT", "/api/users", &user).expect(200);
    let user = json!({"id": "u:{2}", "nickname": "x"});
    server.as_backend("PUT", "/api/users", &user).expect(200);
    let signed_in = challenge(server, &wallet);
    let signed_in = server
        .json("POST", "/api/auth/wallet", &[], &signed_in)
        .expect(200)
        .json();
    let refreshed = refresh(server, &signed_in["refreshToken"])
        .expect(200)
        .json();

    let mut claims = server.claims("u1");
    claims["jti"] = json!("gone");
    let revoked = server.token_with(&claims);
    server
        .as_backend("POST", "/api/auth/revoke", &json!({"jti": "gone"}))
        .expect(200);

    for n in 0..5 {
        let note = server.notify("u1", &format!("note {n}"));
        if n % 2 == 0 {
            let read = json!({"notificationId": note["id"], "isRead": true});
            server.as_user("u1", "PATCH", NOTIFY, &read).expect(200);
        }
    }
    let kept_note = once(server, NOTIFY, "k", &once_note()).expect(201).json();
    let kept_event = once(server, PUBLISH, "k", &once_event()).expect(200).json();

    let mut client = server.connect("u1");
    let quiet = client.subscribe("chat_quiet")["data"]["epoch"].clone();
    let chat = publish(server, "chat_{1}", 1..=5);
    client.close();
    // The newest is among what is missed, whichever the clock says.
    publish(server, "chat_{1}", 6..=9);
    Told {
        challenge: challenge(server, &wallet),
        wallet,
        signed_in,
        refreshed,
        revoked,
        notes: [notes(server, "u1"), notes(server, "u2")],
        once: [kept_note, kept_event],
        chat,
        quiet,
    }
}

#[track_caller]
pub fn has_all(server: &Server, told: &Told) {
    assert_eq!(notes(server, "u1"), told.notes[0]);
    assert_eq!(notes(server, "u2"), told.notes[1]);
    assert_eq!(told.notes[0]["unreadCount"], 2);
    let bearer = format!("Bearer {}", told.revoked);
    let refused = server.http("GET", "/api/auth/wallet", &[("Authorization", &bearer)], "");
    assert_eq!(refused.expect(401).json()["code"], "token_revoked");
    let again = once(server, NOTIFY, "k", &once_note()).json();
    assert_eq!(again["notification"], told.once[0]["notification"]);
    let again = once(server, PUBLISH, "k", &once_event()).json();
    assert_eq!(again["offset"], told.once[1]["offset"]);
    assert_eq!(again["epoch"], told.once[1]["epoch"]);
    // The reply to the first refresh was lost: within the grace it is given again.
    let again = refresh(server, &told.signed_in["refreshToken"])
        .expect(200)
        .json();
    assert_eq!(again["refreshToken"], told.refreshed["refreshToken"]);
    assert_eq!(again["user"], told.signed_in["user"]);
}
