//! "Did you mean": the known word nearest to an unknown one.

/// Below this likeness (0 to 1) the suggestion of a key would puzzle more than it helps: keys of one
/// section are all a little alike.
const KEY_LIKENESS: f64 = 0.75;

/// The same for the last part of a key alone, of whatever section: `port` is no `post`.
const NAME_LIKENESS: f64 = 0.85;

/// The same for words, which are short: two letters swapped in a word of three are 0.67.
const WORD_LIKENESS: f64 = 0.6;

/// The word of `known` nearest to `word`, if one is near.
pub(super) fn word<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    nearest(&word.to_lowercase(), known, WORD_LIKENESS, |known| known)
}

/// The dotted key of `known` nearest to `key`: one that is spelled alike, else one whose last part is
/// (`queue_bytes`, or `server.token_ttl`: the right key in the wrong section).
pub(super) fn key<'a>(key: &str, known: impl Iterator<Item = &'a str> + Clone) -> Option<&'a str> {
    nearest(key, known.clone(), KEY_LIKENESS, |known| known)
        .or_else(|| {
            let (section, name) = key.rsplit_once('.')?;
            let listens = |known: &&str| known.strip_suffix(".listen") == Some(section);
            // What other servers call it.
            let is_meant = matches!(name, "port" | "host" | "address" | "addr" | "bind");
            known.clone().find(listens).filter(|_| is_meant)
        })
        .or_else(|| nearest(last_part(key), known, NAME_LIKENESS, last_part))
}

fn nearest<'a>(
    word: &str,
    known: impl IntoIterator<Item = &'a str>,
    least: f64,
    compared: impl Fn(&'a str) -> &'a str,
) -> Option<&'a str> {
    known
        .into_iter()
        .map(|known| {
            let likeness = strsim::normalized_damerau_levenshtein(word, compared(known));
            (known, likeness)
        })
        .filter(|(_, likeness)| *likeness >= least)
        .max_by(|(_, a), (_, b)| a.total_cmp(b))
        .map(|(known, _)| known)
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
        assert_eq!(key_for("server.port"), Some("server.listen"));
        assert_eq!(key_for("auth.port"), None);
    }

    #[test]
    fn what_is_like_nothing_gets_no_suggestion() {
        assert_eq!(key_for("zebra.stripes"), None);
        assert_eq!(word("public", ["any", "own"]), None);
        assert_eq!(word("onw", ["any", "own"]), Some("own"));
    }
}
