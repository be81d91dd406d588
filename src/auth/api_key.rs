//! The keys of backends: known here by their SHA-256 only, compared in constant time.

use aws_lc_rs::{constant_time, digest};

/// What is longer is no key; it is not even hashed.
pub const MAX_KEY_BYTES: usize = 512;

/// What `auth.api_keys` holds of a key.
pub fn fingerprint(key: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, key).as_ref());
    out
}

/// Whether `key` is one of `known`. Looks at all of them, whichever fits, so that the time it takes
/// says nothing about which.
pub fn is_known(key: &[u8], known: &[[u8; 32]]) -> bool {
    if known.is_empty() || key.is_empty() || key.len() > MAX_KEY_BYTES {
        return false;
    }
    let presented = fingerprint(key);
    known.iter().fold(false, |found, one| {
        constant_time::verify_slices_are_equal(one, &presented).is_ok() | found
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_plain_sha_256() {
        // FIPS 180-2, appendix B.1.
        let hex: String = fingerprint(b"abc")
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!(
            hex,
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn any_of_the_keys_is_good_and_nothing_else() {
        let known = [fingerprint(b"first"), fingerprint(b"second")];
        assert!(is_known(b"first", &known));
        assert!(is_known(b"second", &known));
        assert!(!is_known(b"third", &known));
        assert!(!is_known(b"", &[fingerprint(b"")]));
        assert!(!is_known(b"first", &[]));
        let long = vec![b'x'; MAX_KEY_BYTES + 1];
        assert!(!is_known(&long, &[fingerprint(&long)]));
    }
}
