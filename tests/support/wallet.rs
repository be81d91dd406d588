//! Wallets with their keys, as far as signing in goes: one of Solana, one of Ethereum.

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use k256::ecdsa::SigningKey;
use sha3::{Digest, Keccak256};

use super::Dice;

/// A key of Solana's.
pub struct SolanaWallet(Ed25519KeyPair);

impl SolanaWallet {
    pub fn new(dice: &mut Dice) -> Self {
        Self(Ed25519KeyPair::from_seed_unchecked(&dice.bytes(32)).unwrap())
    }

    pub fn address(&self) -> String {
        bs58::encode(self.0.public_key().as_ref()).into_string()
    }

    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.0.sign(message).as_ref().to_vec()
    }

    /// In base58.
    pub fn sign_text(&self, message: &str) -> String {
        bs58::encode(self.sign(message.as_bytes())).into_string()
    }
}

/// A key of Ethereum's.
pub struct EthereumWallet(SigningKey);

impl EthereumWallet {
    pub fn new(dice: &mut Dice) -> Self {
        Self(SigningKey::from_slice(&dice.bytes(32)).unwrap())
    }

    /// In small letters.
    pub fn address(&self) -> String {
        let point = self.0.verifying_key().to_sec1_point(false);
        let hash = Keccak256::digest(&point.as_bytes()[1..]);
        "0x".to_owned() + &hex(&hash[12..])
    }

    /// `personal_sign`
    pub fn sign_text(&self, message: &str) -> String {
        let length = message.len();
        let text = format!("\x19Ethereum Signed Message:\n{length}{message}");
        let hash = Keccak256::digest(text);
        let (signature, recovery) = self.0.sign_prehash_recoverable(&hash);
        format!(
            "0x{}{:02x}",
            hex(&signature.to_bytes()),
            recovery.to_byte() + 27
        )
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
