//! "Did you mean": the known word nearest to an unknown one.

/// Below this likeness (0 to 1) a suggestion would puzzle more than it helps.
const LIKENESS: f64 = 0.7;

/// The word of `known` nearest to `word`, if one is near.
pub(super) fn word<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    nearest(known.into_iter().map(|candidate| {
        let likeness = strsim::normalized_damerau_levenshtein(&word, candidate);
        (candidate, likeness)
    }))
}

/// The dotted key of `known` nearest to `key`: one that is spelled alike, else one whose last part is
/// (`queue_bytes`, or `server.token_ttl`: the right key in the wrong section).
pub(super) fn key<'a>(key: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let known: Vec<&str> = known.collect();
    word(key, known.iter().copied()).or_else(|| {
        let last = last_part(key);
        nearest(known.iter().map(|candidate| {
            let likeness = strsim::normalized_damerau_levenshtein(last, last_part(candidate));
            (*candidate, likeness)
        }))
    })
}

fn nearest<'a>(candidates: impl Iterator<Item = (&'a str, f64)>) -> Option<&'a str> {
    candidates
        .filter(|(_, likeness)| *likeness >= LIKENESS)
        .max_by(|(_, a), (_, b)| a.total_cmp(b))
        .map(|(candidate, _)| candidate)
}

fn last_part(key: &str) -> &str {
    key.rsplit_once('.').map_or(key, |(_, last)| last)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: [&str; 3] = ["limits.queue_bytes", "auth.token_ttl", "server.listen"];

    fn key_for(unknown: &str) -> Option<&'static str> {
        key(unknown, KEYS.into_iter())
    }

    #[test]
    fn typing_errors_and_wrong_sections_are_understood() {
        assert_eq!(key_for("limits.queue_byte"), Some("limits.queue_bytes"));
        assert_eq!(key_for("limits_queue_bytes"), Some("limits.queue_bytes"));
        assert_eq!(key_for("server.token_ttl"), Some("auth.token_ttl"));
        assert_eq!(key_for("listen"), Some("server.listen"));
    }

    #[test]
    fn what_is_like_nothing_gets_no_suggestion() {
        assert_eq!(key_for("zebra.stripes"), None);
        assert_eq!(word("public", ["any", "own"]), None);
    }
}
