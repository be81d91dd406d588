//! Ethereum's side of signing in: signatures of `personal_sign` (EIP-191), from which the signer's
//! address is recovered.
//!
//! Not for: wallets that are contracts (EIP-1271): only a node of the chain could check theirs.

use k256::ecdsa::{RecoveryId, Signature, VerifyingKey};
use sha3::{Digest, Keccak256};

/// Whether a signature (`0x` and 130 hexadecimal digits: r, s, v) is this address's over the message.
pub fn verify(address: &[u8; 20], message: &str, signature: &str) -> bool {
    recover(message, signature).is_some_and(|signer| signer == *address)
}

fn recover(message: &str, signature: &str) -> Option<[u8; 20]> {
    let signature = read(signature)?;
    let (rs, v) = signature.split_at(64);
    // 27 and 28 by the yellow paper; hardware wallets count from 0.
    let parity = match v.first()? {
        v @ (0 | 1) => *v,
        v @ (27 | 28) => v - 27,
        _ => return None,
    };
    let signature = Signature::from_slice(rs).ok()?;
    let recovery = RecoveryId::from_byte(parity)?;
    let key = VerifyingKey::recover_from_prehash(&hash(message), &signature, recovery).ok()?;
    let point = key.to_sec1_point(false);
    // Without the byte that says that it is not compressed.
    let hash = Keccak256::digest(point.as_bytes().get(1..)?);
    hash.last_chunk().copied()
}

/// EIP-191, version 0x45.
fn hash(message: &str) -> [u8; 32] {
    let mut hash = Keccak256::new();
    hash.update(b"\x19Ethereum Signed Message:\n");
    hash.update(message.len().to_string());
    hash.update(message);
    hash.finalize().into()
}

fn read(text: &str) -> Option<[u8; 65]> {
    let digits: &[u8; 130] = text
        .strip_prefix("0x")
        .unwrap_or(text)
        .as_bytes()
        .try_into()
        .ok()?;
    let mut bytes = [0u8; 65];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let value = |digit: u8| char::from(digit).to_digit(16);
        *byte = u8::try_from(value(pair[0])? * 16 + value(pair[1])?).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::wallet::Wallet;

    /// Of the documentation of web3.js, `eth.accounts.sign`.
    const ADDRESS: &str = "0x2c7536E3605D9C16a7a3D7b1898e529396a65c23";
    const SIGNED: &str = "0xb91467e570a6466aa9e9876cbcd013baba02900b8979d43fe208a4a4f339f5fd\
                          6007e74cd82e037b800186422fc2da167c747ef045e5d18a5f5d4300f8e1a0291c";

    fn is_good(message: &str, signature: &str) -> bool {
        match Wallet::parse(ADDRESS) {
            Some(Wallet::Ethereum(address)) => verify(&address, message, signature),
            _ => panic!("it is one"),
        }
    }

    #[test]
    fn a_signature_of_another_program_is_understood() {
        assert!(is_good("Some data", SIGNED));
        let hardware = SIGNED[..130].to_owned() + "01";
        assert!(is_good("Some data", &hardware));
        assert!(is_good("Some data", &SIGNED[2..]));
        assert!(!is_good("Some datum", SIGNED));
        assert!(!is_good("Some data", &(SIGNED[..130].to_owned() + "1b")));
    }

    #[test]
    fn what_is_no_signature_is_none() {
        for nonsense in [
            "",
            "0x",
            &SIGNED[..130],
            &(SIGNED.to_owned() + "00"),
            &(SIGNED[..130].to_owned() + "02"),
            &(SIGNED[..130].to_owned() + "ff"),
            &("0x".to_owned() + &"0".repeat(128) + "1b"),
            &("0x".to_owned() + &"f".repeat(128) + "1b"),
            &"é".repeat(65),
        ] {
            assert!(!is_good("Some data", nonsense), "{nonsense}");
        }
    }
}
