//! Every way in which a refresh token can be presented.

use super::*;

const START_MS: u64 = 1_795_406_706_789;
const SECOND_MS: u64 = 1_000;
const DAY_MS: u64 = 86_400_000;

const POLICY: Policy = Policy {
    refresh_ttl: Duration::from_secs(30 * 86_400),
    refresh_ttl_max: Duration::from_secs(90 * 86_400),
    refresh_grace: Duration::from_secs(10),
    token_ttl: Duration::from_secs(1_800),
};

fn key(secret: u8) -> Key {
    Key::of(&Secret::new([secret; 32]))
}

fn begin() -> (Family, String) {
    let names = ("fam".to_owned(), "salt".to_owned());
    Family::begin(&key(1), names, ("u1".to_owned(), None), POLICY, START_MS)
}

fn present(family: &Family, token: &str, unix_ms: u64) -> Outcome {
    let presented = Presented::parse(token).unwrap();
    family.present(presented, &key(1), POLICY, unix_ms)
}

#[track_caller]
fn rotated(outcome: Outcome) -> (Family, String) {
    match outcome {
        Outcome::Rotated(family, token) => (*family, token),
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_gives_the_next_and_slides_until_the_end() {
    let (mut family, mut token) = begin();
    let mut seen = vec![token.clone()];
    for month in 0..3 {
        let now_ms = START_MS + month * 29 * DAY_MS;
        let (next, successor) = rotated(present(&family, &token, now_ms));
        assert!(!seen.contains(&successor));
        seen.push(successor.clone());
        assert_eq!(
            next.expires_ms(),
            (now_ms + 30 * DAY_MS).min(START_MS + 90 * DAY_MS)
        );
        (family, token) = (next, successor);
    }
    let end_ms = START_MS + 87 * DAY_MS;
    let (last, token) = rotated(present(&family, &token, end_ms));
    assert_eq!(last.expires_ms(), START_MS + 90 * DAY_MS);
    assert_eq!(
        present(&last, &token, last.expires_ms()),
        Outcome::Refused(Refused::Expired)
    );
}

#[test]
fn a_lost_reply_is_given_again_while_it_is_young_and_unused() {
    let (family, first) = begin();
    let (second_family, second) = rotated(present(&family, &first, START_MS));
    for after_ms in [0, 9_999] {
        let again = present(&second_family, &first, START_MS + after_ms);
        assert_eq!(again, Outcome::Again(second.clone()));
    }
    // The grace is over.
    let late = present(&second_family, &first, START_MS + 10 * SECOND_MS);
    assert!(matches!(late, Outcome::Reused(family) if family.is_revoked));
    // The successor was used: two hold the first.
    let (third_family, third) = rotated(present(&second_family, &second, START_MS + 1));
    let reused = present(&third_family, &first, START_MS + 2);
    assert!(matches!(reused, Outcome::Reused(_)), "{reused:?}");
    // Which does not hinder the honest one's own grace.
    let again = present(&third_family, &second, START_MS + 2);
    assert_eq!(again, Outcome::Again(third));
}

#[test]
fn without_a_grace_every_second_use_is_one_too_many() {
    let (family, first) = begin();
    let strict = Policy {
        refresh_grace: Duration::ZERO,
        ..POLICY
    };
    let (next, _) = rotated(present(&family, &first, START_MS));
    let presented = Presented::parse(&first).unwrap();
    let reused = next.present(presented, &key(1), strict, START_MS);
    assert!(matches!(reused, Outcome::Reused(_)));
}

#[test]
fn who_makes_one_up_ends_nothing() {
    let (mut family, first) = begin();
    for _ in 0..5 {
        let token = key(1).token(&family.id, &family.salt, family.generation);
        (family, _) = rotated(present(&family, &token, START_MS));
    }
    let tag = first.rsplit_once('.').unwrap().1;
    for forged in [
        format!("ffr.fam.0.{}", "A".repeat(43)),
        format!("ffr.fam.1.{tag}"),
        format!("ffr.fam.6.{tag}"),
        format!("ffr.fam.4294967295.{tag}"),
        format!("ffr.fam.00.{tag}"),
        key(2).token("fam", "salt", 0),
        key(1).token("fam", "pepper", 0),
        key(1).token("other", "salt", 0),
        // One that there has not been yet.
        key(1).token("fam", "salt", 6),
    ] {
        let outcome = present(&family, &forged, START_MS);
        assert_eq!(outcome, Outcome::Refused(Refused::Invalid), "{forged}");
    }
    let reused = present(&family, &first, START_MS);
    let Outcome::Reused(revoked) = reused else {
        panic!("{reused:?}");
    };
    let current = key(1).token("fam", "salt", 5);
    assert_eq!(
        present(&revoked, &current, START_MS),
        Outcome::Refused(Refused::Revoked)
    );
}

#[test]
fn another_secret_does_not_end_a_family() {
    let (family, first) = begin();
    let presented = Presented::parse(&first).unwrap();
    let (next, second) = rotated(family.present(presented, &key(2), POLICY, START_MS));
    // Within the grace, under another secret still: what it gave is replaced.
    let (other, third) = rotated(next.present(presented, &key(3), POLICY, START_MS + 1));
    assert_ne!(second, third);
    let unseen = Presented::parse(&second).unwrap();
    assert_eq!(
        other.present(unseen, &key(3), POLICY, START_MS + 2),
        Outcome::Refused(Refused::Invalid)
    );
    let last = Presented::parse(&third).unwrap();
    rotated(other.present(last, &key(3), POLICY, START_MS + 3));
}

#[test]
fn only_hashes_are_kept() {
    let (family, first) = begin();
    let (next, second) = rotated(present(&family, &first, START_MS));
    let kept = serde_json::to_string(&next).unwrap();
    for token in [&first, &second] {
        let tag = token.rsplit_once('.').unwrap().1;
        assert!(!kept.contains(tag));
    }
    assert_eq!(serde_json::from_str::<Family>(&kept).unwrap(), next);
    assert_eq!(next.access_until_ms, START_MS + 1_810 * SECOND_MS);
}

#[test]
fn what_has_another_form_is_none() {
    for nonsense in [
        "",
        "ffr",
        "ffr.a.0",
        "ffr.a.0.",
        "ffr..0.t",
        "ffr.a.x.t",
        "ffr.a.-1.t",
        "ffr.a.4294967296.t",
        "ffr.a.0.t.x",
        "ffr.a/b.0.t",
        "ffr.ä.0.t",
        "eyJ.a.0.t",
        &format!("ffr.{}.0.t", "a".repeat(25)),
        &format!("ffr.a.0.{}", "t".repeat(128)),
    ] {
        assert_eq!(Presented::parse(nonsense), None, "{nonsense}");
    }
}
