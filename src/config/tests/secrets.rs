//! Secrets: where they may come from, and that they go nowhere.

use super::*;

const SECRET: &str = "correct-horse-battery-staple-and-more";
const API_KEY: &str = "backend-key-0123456789";

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_secret_file_loses_one_newline_and_nothing_else() {
    let folder = Folder::new();
    for (content, expected) in [
        (format!("{SECRET}\n"), SECRET.to_owned()),
        (format!("{SECRET}\r\n"), SECRET.to_owned()),
        (format!(" {SECRET} \n\n"), format!(" {SECRET} \n")),
        (SECRET.to_owned(), SECRET.to_owned()),
    ] {
        let file = folder.file("secret", content);
        let config = load(&environment(&[("FANFARE_AUTH__SECRET_FILE", path(&file))])).unwrap();
        assert_eq!(config.auth.secret.unwrap().expose(), expected.as_bytes());
    }
}

#[test]
fn api_keys_are_kept_as_hashes_wherever_they_come_from() {
    let folder = Folder::new();
    let other = "another-key-0123456789";
    let keys = folder.file("keys", format!("{API_KEY}\r\n\n{other}\n"));
    let listed = toml(&format!("[auth]\napi_keys = [\"{API_KEY}\", \"{other}\"]")).unwrap();
    let named = load(&flags(&[("auth.api_keys_file", path(&keys))])).unwrap();
    let variable = format!("{API_KEY}, {other}");
    let given = load(&environment(&[("FANFARE_AUTH__API_KEYS", &variable)])).unwrap();
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, API_KEY.as_bytes());
    assert_eq!(listed.auth.api_keys.len(), 2);
    assert_eq!(listed.auth.api_keys[0], digest.as_ref());
    assert_eq!(named.auth.api_keys, listed.auth.api_keys);
    assert_eq!(given.auth.api_keys, listed.auth.api_keys);
}

#[test]
fn a_secret_twice_in_one_place_is_a_mistake_and_else_the_stronger_place_wins() {
    let folder = Folder::new();
    let secret = folder.file("secret", "from the secret file, which is long enough");
    let both = format!(
        "[auth]\nsecret = \"{SECRET}\"\nsecret_file = {:?}",
        path(&secret)
    );
    let mistakes = toml(&both).unwrap_err();
    assert_eq!(mistakes.0.len(), 1);
    assert!(mistakes.to_string().contains("given twice"), "{mistakes}");

    let config_file = folder.file(
        "config.toml",
        format!("[auth]\nsecret_file = {:?}", path(&secret)),
    );
    let sources = Sources {
        file: Some(config_file),
        ..environment(&[
            ("FANFARE_AUTH__SECRET", SECRET),
            ("NEXTAUTH_SECRET", "short"),
        ])
    };
    let config = load(&sources).unwrap();
    assert_eq!(config.auth.secret.unwrap().expose(), SECRET.as_bytes());
}

#[test]
fn weak_and_empty_secrets_are_refused() {
    for (name, expected) in [
        ("FANFARE_AUTH__SECRET", "shorter than 32 bytes"),
        ("NEXTAUTH_SECRET", "the predecessor took such a key"),
        (
            "FANFARE_AUTH__API_KEYS",
            "key number 1 is too short or too long",
        ),
    ] {
        let mistakes = load(&environment(&[(name, "weak-hunter2")]))
            .unwrap_err()
            .to_string();
        assert!(mistakes.contains(expected), "{mistakes}");
        assert!(
            mistakes.contains(name) && !mistakes.contains("hunter2"),
            "{mistakes}"
        );
    }
    let forgotten = load(&environment(&[("FANFARE_AUTH__SECRET", "")])).unwrap_err();
    assert!(forgotten.to_string().contains("shorter"), "{forgotten}");
    let missing = load(&flags(&[("auth.secret_file", "/nowhere/secret")])).unwrap_err();
    assert!(missing.to_string().contains("cannot be read"), "{missing}");
}

#[test]
fn no_secret_is_ever_shown() {
    let folder = Folder::new();
    let config_file = folder.file(
        "config.toml",
        format!("[auth]\nsecret = \"{SECRET}\"\napi_keys = [\"{API_KEY}\"]\n[broker.redis]\nurl = \"redis://:hunter2@h\""),
    );
    let loaded = inspect(&file(&config_file)).unwrap();
    let hidden = loaded
        .changed
        .iter()
        .filter(|setting| setting.value == "***");
    assert_eq!(hidden.count(), 3);
    let printed = format!("{loaded:?}");
    for secret in [SECRET, API_KEY, "hunter2"] {
        assert!(!printed.contains(secret), "{printed}");
    }
}

/// A URL that may not have a password is shown without it when it has one.
#[test]
fn no_mistake_repeats_the_password_of_a_url() {
    for (text, shown) in [
        (
            "[channels.backend]\nurl = \"https://user:hunter2@app.example/x\"",
            "\"https://***@app.example/x\"",
        ),
        (
            "[channels.backend]\nurl = \"user:hunter2@app.example/x\"",
            "\"***@app.example/x\"",
        ),
        (
            "[alerts]\nwebhook_url = \"https://hunter2@h/a/fine/path\"",
            "\"https://***@h/a/fine/path\"",
        ),
        (
            "[alerts]\nwebhook_url = \"https://user:hunter2/@hunter2@h/\"",
            "\"https://***@h/\"",
        ),
        (
            "[traces]\notlp_url = \"http://user:hunter2@h:4318/v1/traces\"",
            "\"http://***@h:4318/v1/traces\"",
        ),
        (
            "[auth.issuers.x]\nissuer = \"i\"\naudience = \"a\"\njwks_url = \"https://:hunter2@h/j\"",
            "\"https://***@h/j\"",
        ),
        (
            "[server]\npublic_url = \"https://user:hunter2@h\"",
            "\"https://***@h\"",
        ),
        (
            "[server]\nallowed_origins = [\"https://user:hunter2@h\"]",
            "[\"https://***@h\"]",
        ),
    ] {
        let mistakes = toml(text).unwrap_err();
        let printed = format!("{mistakes}{mistakes:?}");
        assert!(!printed.contains("hunter2"), "{text}\n{printed}");
        let value = format!(" = {shown}\n");
        assert!(mistakes.to_string().contains(&value), "{text}\n{mistakes}");
    }
}

/// Whatever is wrong around a secret, the text of the mistake does not repeat it.
#[test]
fn no_mistake_repeats_a_secret() {
    for text in [
        "[auth]\nsecret = hunter2",
        "[auth]\nsecret = \"hunter2",
        "[auth]\nsecret = \"hunter2\" hunter2",
        "[auth]\nsecret = 'hunter2'\nsecret = 'hunter2'",
        "[auth]\nsecret = \"\\hunter2\"",
        "[auth]\nsecret = [\"hunter2\"]",
        "[auth]\nsecret = { hunter = \"hunter2\" }",
        "[auth]\nsecrets = \"hunter2\"",
        "auth = \"hunter2\"",
        "[auth]\napi_keys = [\"hunter2\", \"hunter2 with other characters\"]",
        "[auth]\napi_keys = [[\"hunter2\"]]",
        "[auth.keys.k]\npem = \"hunter2\"",
        "[auth.keys.k]\npem = [\"hunter2\"]",
        "[auth]\nprevious_secret = \"hunter2\"",
        "[broker.redis]\nurl = \"http://:hunter2@h\"",
        "[broker.redis]\nurl = \"redis://:hunter2@h:port\"",
        "[broker.redis]\npubsub_url = \"hunter2\"",
    ] {
        let mistakes = toml(text).unwrap_err();
        let printed = format!("{mistakes}{mistakes:?}");
        assert!(!printed.contains("hunter2"), "{text}\n{printed}");
    }
    let by_flag = load(&flags(&[
        ("auth.secret", "hunter2"),
        ("auth.api_keys", "hunter2"),
    ]));
    let mistakes = by_flag.unwrap_err();
    assert_eq!(mistakes.0.len(), 2);
    assert!(
        !format!("{mistakes}{mistakes:?}").contains("hunter2"),
        "{mistakes}"
    );
}
