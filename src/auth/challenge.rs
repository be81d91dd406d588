//! What a wallet signs to sign in: one text for both standards, Sign-In With Solana (the wallet
//! standard's `solana:signIn`) and Sign-In With Ethereum (EIP-4361), which took it from the other.
//!
//! Not for: checking signatures (`siws`, `siwe`), or keeping nonces (`http::challenge`).

use std::time::Duration;

use aws_lc_rs::{digest, rand};
use serde::Serialize;

use super::wallet::Wallet;
use crate::clock::{millis, rfc3339};

/// How long a challenge may be answered. Contract section 2.
pub const CHALLENGE_TTL: Duration = Duration::from_secs(5 * 60);
/// A message that is longer is none of ours.
pub const MESSAGE_BYTES_MAX: usize = 2_048;
/// A domain that is longer cannot be one (RFC 1035), with room for a port.
const DOMAIN_BYTES_MAX: usize = 261;

const VERSION: &str = "1";
const NONCE: &str = "Nonce: ";

/// A challenge as its fields: the input of `solana:signIn`, of which a wallet makes the same text.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Challenge {
    /// Who asks: the host that browsers know, and its port unless it is the usual one.
    pub domain: String,
    /// Who is to sign.
    pub address: String,
    /// For people: one line.
    pub statement: String,
    /// What is signed in to.
    pub uri: String,
    /// Of the standard.
    pub version: &'static str,
    /// The chain that the address is on.
    pub chain_id: String,
    /// Never the same twice.
    pub nonce: String,
    /// When it was made.
    pub issued_at: String,
    /// Until when it may be answered.
    pub expiration_time: String,
    #[serde(skip)]
    chain: &'static str,
}

/// What all challenges of a server have in common.
#[derive(Debug, Clone, Copy)]
pub struct Scene<'a> {
    /// See [`Challenge::domain`].
    pub domain: &'a str,
    /// See [`Challenge::uri`].
    pub uri: &'a str,
    /// See [`Challenge::statement`].
    pub statement: &'a str,
    /// The chain that wallets of Solana are asked for.
    pub solana_chain: &'a str,
    /// The chain that wallets of Ethereum are asked for.
    pub ethereum_chain: u64,
}

impl Challenge {
    /// A new one for this wallet; `None` if the system has no randomness to give.
    pub fn new(wallet: &Wallet, scene: Scene<'_>, unix_ms: u64) -> Option<Self> {
        let mut random = [0u8; 16];
        rand::fill(&mut random).ok()?;
        let (chain, chain_id) = match wallet {
            Wallet::Solana(_) => ("Solana", scene.solana_chain.to_owned()),
            Wallet::Ethereum(_) => ("Ethereum", scene.ethereum_chain.to_string()),
        };
        Some(Self {
            domain: scene.domain.to_owned(),
            address: wallet.to_string(),
            statement: scene.statement.to_owned(),
            uri: scene.uri.to_owned(),
            version: VERSION,
            chain_id,
            // Letters and digits only, as EIP-4361 asks for.
            nonce: bs58::encode(random).into_string(),
            issued_at: rfc3339(unix_ms),
            expiration_time: rfc3339(unix_ms.saturating_add(millis(CHALLENGE_TTL))),
            chain,
        })
    }

    /// The text that is signed, byte for byte.
    pub fn message(&self) -> String {
        format!(
            "{domain} wants you to sign in with your {chain} account:\n\
             {address}\n\
             \n\
             {statement}\n\
             \n\
             URI: {uri}\n\
             Version: {version}\n\
             Chain ID: {chain_id}\n\
             {NONCE}{nonce}\n\
             Issued At: {issued_at}\n\
             Expiration Time: {expiration_time}",
            domain = self.domain,
            chain = self.chain,
            address = self.address,
            statement = self.statement,
            uri = self.uri,
            version = self.version,
            chain_id = self.chain_id,
            nonce = self.nonce,
            issued_at = self.issued_at,
            expiration_time = self.expiration_time,
        )
    }
}

/// The nonce that a message names, under which its challenge was kept; whether the rest of it is what
/// was asked for, its hash tells.
pub fn nonce_of(message: &str) -> Option<&str> {
    if message.len() > MESSAGE_BYTES_MAX {
        return None;
    }
    let nonce = message.lines().find_map(|line| line.strip_prefix(NONCE))?;
    let is_one =
        (8..=32).contains(&nonce.len()) && nonce.bytes().all(|b| b.is_ascii_alphanumeric());
    is_one.then_some(nonce)
}

/// Whether a message of ours asks this wallet.
pub fn is_for(message: &str, wallet: &Wallet) -> bool {
    message.lines().nth(1) == Some(&*wallet.to_string())
}

/// What is kept of a message: every byte of it, and nothing that could be signed.
pub fn fingerprint(message: &str) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, message.as_bytes()).as_ref());
    out
}

/// Whether a host and maybe a port may stand in a message. It may come from a client.
pub fn is_domain(text: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte);
    (1..=DOMAIN_BYTES_MAX).contains(&text.len()) && text.bytes().all(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCENE: Scene<'_> = Scene {
        domain: "fonana.me",
        uri: "https://fonana.me",
        statement: "Sign in to Fonana.",
        solana_chain: "mainnet",
        ethereum_chain: 1,
    };

    #[test]
    fn the_text_is_that_of_the_standards() {
        let wallet = Wallet::parse("4Nd1mBQtrMJVYVfKf2PJy9NZUZdTAsp7D4xWLs4gDB4T").unwrap();
        let solana = Challenge::new(&wallet, SCENE, 1_795_406_706_789).unwrap();
        let expected = format!(
            "fonana.me wants you to sign in with your Solana account:\n\
             4Nd1mBQtrMJVYVfKf2PJy9NZUZdTAsp7D4xWLs4gDB4T\n\n\
             Sign in to Fonana.\n\n\
             URI: https://fonana.me\nVersion: 1\nChain ID: mainnet\nNonce: {}\n\
             Issued At: 2026-11-23T04:05:06.789Z\nExpiration Time: 2026-11-23T04:10:06.789Z",
            solana.nonce
        );
        assert_eq!(solana.message(), expected);
        assert_eq!(nonce_of(&expected), Some(&*solana.nonce));
        assert!(is_for(&expected, &wallet));
        assert!(!is_for(&expected, &Wallet::Solana([7; 32])));
        let wallet = Wallet::parse("0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed").unwrap();
        let ethereum = Challenge::new(&wallet, SCENE, 0).unwrap();
        assert!(ethereum.message().starts_with(
            "fonana.me wants you to sign in with your Ethereum account:\n\
             0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed\n\nSign in"
        ));
        assert!(ethereum.message().contains("\nChain ID: 1\n"));
        assert_ne!(ethereum.nonce, solana.nonce);
    }

    #[test]
    fn a_wallet_gets_the_fields_under_the_names_of_its_standard() {
        let wallet = Wallet::Solana([7; 32]);
        let challenge = Challenge::new(&wallet, SCENE, 0).unwrap();
        let input = serde_json::to_value(&challenge).unwrap();
        let mut names: Vec<&String> = input.as_object().unwrap().keys().collect();
        names.sort();
        assert_eq!(
            names,
            [
                "address",
                "chainId",
                "domain",
                "expirationTime",
                "issuedAt",
                "nonce",
                "statement",
                "uri",
                "version"
            ]
        );
    }

    #[test]
    fn a_nonce_is_found_or_there_is_none() {
        let nonce = |message: &str| nonce_of(message).map(str::to_owned);
        assert_eq!(nonce("x\nNonce: abcdefgh\ny").as_deref(), Some("abcdefgh"));
        for none in [
            "",
            "Nonce:",
            "nonce: abcdefgh",
            "Nonce: short",
            "Nonce: abc defgh",
            "Nonce: ábcdefgh",
            "x Nonce: abcdefgh",
            &("Nonce: ".to_owned() + &"a".repeat(33)),
            &("\n".repeat(MESSAGE_BYTES_MAX) + "Nonce: abcdefgh"),
        ] {
            assert_eq!(nonce(none), None, "{none:?}");
        }
    }

    #[test]
    fn a_host_is_a_host() {
        for good in ["fonana.me", "localhost:3002", "[::1]:80", "127.0.0.1"] {
            assert!(is_domain(good), "{good}");
        }
        for bad in ["", "a b", "a\nb", "a/b", "ä", "a@b", &"a".repeat(262)] {
            assert!(!is_domain(bad), "{bad}");
        }
    }
}
