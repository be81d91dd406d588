//! Asks for settings one by one and remembers every mistake, so that the last one is told with the first.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use aws_lc_rs::digest;
use hyper::header::{HeaderName, HeaderValue};

use super::Secret;
use super::keys;
use super::layers::Layers;
use super::mistake::{Fault, Mistake};
use super::raw::{Given, Origin, Value};
use super::{sources, traces, values};
use crate::key_pair::KeyPair;

/// Fewer bytes than the hash puts out weaken HMAC-SHA-256 (RFC 2104, section 3).
const SECRET_BYTES: usize = 32;

/// An API key can be guessed at as fast as the network goes: 16 characters of base64 are 96 bits.
/// Longer ones than 512 are not even hashed (`auth::api_key`).
const API_KEY_CHARS: RangeInclusive<usize> = 16..=512;

/// A setting that is not at its default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// `limits.queue_bytes`
    pub key: String,
    /// As it was given; `***` for a secret.
    pub value: String,
    /// Who set it.
    pub origin: Origin,
    /// What it comes down to, the content of a secret's file included: two are the same if this is.
    pub(super) content: Secret,
}

/// The second pass over [`Layers`].
pub(super) struct Reader {
    pub(super) layers: Layers,
    pub(super) mistakes: Vec<Mistake>,
    pub(super) changed: Vec<Setting>,
    /// Every key that was asked for: those of the manual, and a test proves it.
    pub(super) asked: BTreeSet<String>,
}

/// What was read: where from, and the bytes.
type Found = (Origin, Vec<u8>);

impl Reader {
    pub(super) fn new(layers: Layers, mistakes: Vec<Mistake>) -> Self {
        Self {
            layers,
            mistakes,
            changed: Vec::new(),
            asked: BTreeSet::new(),
        }
    }

    /// The value of `key`. `None` always comes with a mistake.
    pub(super) fn read<T: PartialEq>(
        &mut self,
        key: &str,
        parse: impl Fn(&Value) -> Result<T, Fault>,
    ) -> Option<T> {
        let (given, default) = self.find(key)?;
        let value = match parse(&given.value) {
            Ok(value) => value,
            Err(fault) => {
                self.mistakes.push(Mistake::of(key, &given, fault));
                return None;
            }
        };
        if parse(&default.value).ok().as_ref() != Some(&value) {
            let content = given.value.to_bytes();
            self.note(key, &given, content);
        }
        Some(value)
    }

    /// Text that may hold a password, so that it may stand in a file of its own, which `key_file` names.
    pub(super) fn text_or_file(
        &mut self,
        key: &str,
        parse: impl Fn(&Value) -> Result<String, Fault>,
    ) -> Option<String> {
        let file_key = format!("{key}_file");
        let (direct, _) = self.find(key)?;
        let (file, _) = self.find(&file_key)?;
        let (has_direct, has_file) = (is_given(&direct), is_given(&file));
        if !has_file || (has_direct && direct.origin.rank() > file.origin.rank()) {
            return self.read(key, parse);
        }
        if has_direct && direct.origin.rank() == file.origin.rank() {
            self.refuse_both(key, &direct, &file);
            return None;
        }
        let (_, bytes) = self.credential_file(&file_key, &file)?;
        self.note(&file_key, &file, bytes.clone());
        let text = String::from_utf8_lossy(&bytes).into_owned();
        match parse(&Value::Text(text)) {
            Ok(value) => Some(value),
            Err(fault) => {
                self.mistakes.push(Mistake::of(&file_key, &file, fault));
                None
            }
        }
    }

    /// Says that a secret stands in two places of the same strength.
    fn refuse_both(&mut self, key: &str, direct: &Given, file: &Given) {
        let file_key = format!("{key}_file");
        let problem = format!("is given twice: {file_key} is set too ({})", file.origin);
        let mistake = Mistake::new(key, problem).at(&direct.origin);
        self.mistakes
            .push(mistake.accepting(format!("either {key} or {file_key}")));
    }

    /// Says that the value of `key`, well-formed by itself, cannot be.
    pub(super) fn reject(&mut self, key: &str, fault: Fault) {
        if let Some((given, _)) = self.find(key) {
            self.mistakes.push(Mistake::of(key, &given, fault));
        }
    }

    /// `auth.secret`, given or in a file; `Some(None)`: neither.
    pub(super) fn secret(&mut self, key: &str) -> Option<Option<Secret>> {
        let Some((origin, bytes)) = self.credential(key, one_secret)? else {
            return Some(None);
        };
        if bytes.len() < SECRET_BYTES {
            let problem = match origin {
                Origin::Predecessor(_) => {
                    "is shorter than 32 bytes: the predecessor took such a key, but one can find it \
                     by trying, and then sign tokens for anybody"
                }
                _ => "is shorter than 32 bytes",
            };
            let accepted = "32 bytes at least; `openssl rand -base64 48` makes a good one";
            let mistake = Mistake::new(key, problem).at(&origin).accepting(accepted);
            self.mistakes.push(mistake);
            return None;
        }
        Some(Some(Secret::new(bytes)))
    }

    /// A key in PEM, given or in a file; `Some(None)`: neither.
    pub(super) fn pem(&mut self, key: &str) -> Option<Option<KeyPair>> {
        let Some((origin, bytes)) = self.credential(key, one_secret)? else {
            return Some(None);
        };
        match KeyPair::from_pem(&bytes) {
            Ok(pair) => Some(Some(pair)),
            Err(error) => {
                let accepted =
                    "PEM of RSA (2048 bits at least), P-256 or Ed25519, private or public";
                let mistake = Mistake::new(key, error.to_string()).at(&origin);
                self.mistakes.push(mistake.accepting(accepted));
                None
            }
        }
    }

    /// `auth.api_keys`, given or in a file, as SHA-256.
    pub(super) fn api_keys(&mut self, key: &str) -> Option<Vec<[u8; 32]>> {
        let Some((origin, bytes)) = self.credential(key, lines_of)? else {
            return Some(Vec::new());
        };
        let mut digests: Vec<[u8; 32]> = Vec::new();
        let before = self.mistakes.len();
        let lines = bytes.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
        for (at, api_key) in lines.filter(|line| !line.is_empty()).enumerate() {
            let visible = api_key.iter().all(u8::is_ascii_graphic);
            if !visible || !API_KEY_CHARS.contains(&api_key.len()) {
                let problem = format!(
                    "key number {} {}",
                    at + 1,
                    if visible {
                        "is too short or too long"
                    } else {
                        "has other characters"
                    }
                );
                let accepted = "16 to 512 visible ASCII characters for each key";
                let mistake = Mistake::new(key, problem).at(&origin).accepting(accepted);
                self.mistakes.push(mistake);
                continue;
            }
            let digest = digest::digest(&digest::SHA256, api_key);
            digests.extend(<[u8; 32]>::try_from(digest.as_ref()));
        }
        (self.mistakes.len() == before).then_some(digests)
    }

    /// Headers of requests, given or in a file, one a line.
    pub(super) fn headers(&mut self, key: &str) -> Option<Vec<(HeaderName, HeaderValue)>> {
        let Some((origin, bytes)) = self.credential(key, lines_of)? else {
            return Some(Vec::new());
        };
        let mut headers = Vec::new();
        let before = self.mistakes.len();
        let lines = bytes.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
        for (at, line) in lines.filter(|line| !line.is_empty()).enumerate() {
            match traces::header(line) {
                Ok(header) => headers.push(header),
                Err(problem) => {
                    let problem = format!("header number {} {problem}", at + 1);
                    let accepted = "headers such as \"Authorization: Bearer ..\"";
                    let mistake = Mistake::new(key, problem).at(&origin).accepting(accepted);
                    self.mistakes.push(mistake);
                }
            }
        }
        (self.mistakes.len() == before).then_some(headers)
    }

    /// The bytes of a secret from `key` or from the file that `key_file` names, whichever is stronger;
    /// both in one place is a mistake. `Some(None)`: neither. `as_file` gives the bytes that a value
    /// would be in the file.
    fn credential(
        &mut self,
        key: &str,
        as_file: impl Fn(&Value) -> Result<Vec<u8>, Fault>,
    ) -> Option<Option<Found>> {
        let file_key = format!("{key}_file");
        let (direct, _) = self.find(key)?;
        let (file, _) = self.find(&file_key)?;
        let (has_direct, has_file) = (is_given(&direct), is_given(&file));
        if has_direct && has_file && direct.origin.rank() == file.origin.rank() {
            self.refuse_both(key, &direct, &file);
            return None;
        }
        if has_file && (!has_direct || file.origin.rank() > direct.origin.rank()) {
            let found = self.credential_file(&file_key, &file)?;
            self.note(&file_key, &file, found.1.clone());
            return Some(Some(found));
        }
        if !has_direct {
            return Some(None);
        }
        self.note(key, &direct, direct.value.to_bytes());
        match as_file(&direct.value) {
            Ok(bytes) => Some(Some((direct.origin, bytes))),
            Err(fault) => {
                self.mistakes.push(Mistake::of(key, &direct, fault));
                None
            }
        }
    }

    fn credential_file(&mut self, file_key: &str, given: &Given) -> Option<Found> {
        let fault = match &given.value {
            Value::Text(path) => match sources::read_bytes(path.as_ref()) {
                Ok(mut bytes) => {
                    if bytes.ends_with(b"\n") {
                        bytes.pop();
                        bytes.pop_if(|last| *last == b'\r');
                    }
                    return Some((given.origin.clone(), bytes));
                }
                Err(error) => format!("cannot be read: {error}"),
            },
            _ => "is no path".to_owned(),
        };
        let fault = Fault::new(fault, "the path of a readable file");
        self.mistakes.push(Mistake::of(file_key, given, fault));
        None
    }

    /// Says what a setting that names files comes down to.
    pub(super) fn note_content(&mut self, key: &str, content: Vec<u8>) {
        if let Some(setting) = self.changed.iter_mut().find(|setting| setting.key == key) {
            setting.content = Secret::new(content);
        }
    }

    fn find(&mut self, key: &str) -> Option<(Given, Given)> {
        self.asked.insert(key.to_owned());
        let found = self.layers.find(key);
        let found = found.map(|(given, default)| (given.clone(), default.clone()));
        if found.is_none() {
            // Only a hole in the manual gets here.
            self.mistakes.push(Mistake::new(key, "has no default"));
        }
        found
    }

    fn note(&mut self, key: &str, given: &Given, content: Vec<u8>) {
        let secret = keys::is_secret(key);
        self.changed.push(Setting {
            key: key.to_owned(),
            value: if secret {
                "***".into()
            } else {
                given.value.to_string()
            },
            origin: given.origin.clone(),
            content: Secret::new(content),
        });
    }
}

/// Whether somebody gave a secret. An empty one in the file is none, as the manual says. An empty
/// environment variable is one that somebody forgot to fill.
fn is_given(given: &Given) -> bool {
    let empty = match &given.value {
        Value::Text(text) => text.is_empty(),
        Value::List(items) => items.is_empty(),
        _ => false,
    };
    match given.origin {
        Origin::Default => false,
        Origin::File { .. } => !empty,
        _ => true,
    }
}

fn one_secret(value: &Value) -> Result<Vec<u8>, Fault> {
    values::text(value).map(String::into_bytes)
}

fn lines_of(value: &Value) -> Result<Vec<u8>, Fault> {
    let items = values::list(|item| Ok(item.to_owned()))(value)?;
    Ok(items.join("\n").into_bytes())
}
