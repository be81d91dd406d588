//! Wallets: what their addresses look like. Solana's and Ethereum's can be told apart by their form.

use std::fmt::{self, Display, Write as _};

use sha3::{Digest, Keccak256};

/// Base58 of 32 bytes has at most so many characters.
const SOLANA_BYTES_MAX: usize = 44;

/// An address that can sign in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wallet {
    /// An ed25519 public key: base58 (Bitcoin's alphabet) of exactly 32 bytes.
    Solana([u8; 32]),
    /// The end of a hash of a secp256k1 public key: `0x` and 40 hexadecimal digits.
    Ethereum([u8; 20]),
}

impl Wallet {
    /// The wallet of an address. Ethereum's may be in lower or upper case alone; else its capitals have to
    /// be those of EIP-55, which finds most typing errors.
    pub fn parse(text: &str) -> Option<Self> {
        match text.strip_prefix("0x") {
            Some(digits) => ethereum(digits).map(Self::Ethereum),
            None => solana(text).map(Self::Solana),
        }
    }
}

/// One wallet has one address: the capitals of Ethereum's are those of EIP-55.
impl Display for Wallet {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Solana(key) => out.write_str(&bs58::encode(key).into_string()),
            Self::Ethereum(address) => {
                out.write_str("0x")?;
                checksummed(address)
                    .chars()
                    .try_for_each(|digit| out.write_char(digit))
            }
        }
    }
}

fn solana(text: &str) -> Option<[u8; 32]> {
    let mut decoded = [0u8; SOLANA_BYTES_MAX];
    // 32 bytes are at least 32 characters (a zero byte is one `1`).
    let is_one = (32..=SOLANA_BYTES_MAX).contains(&text.len())
        && bs58::decode(text).onto(&mut decoded[..]) == Ok(32);
    is_one.then(|| decoded.first_chunk().copied()).flatten()
}

fn ethereum(digits: &str) -> Option<[u8; 20]> {
    let digits: &[u8; 40] = digits.as_bytes().try_into().ok()?;
    let mut address = [0u8; 20];
    for (byte, pair) in address.iter_mut().zip(digits.chunks_exact(2)) {
        let value = |digit: u8| char::from(digit).to_digit(16);
        *byte = u8::try_from(value(pair[0])? * 16 + value(pair[1])?).ok()?;
    }
    let is_one_case =
        !digits.iter().any(u8::is_ascii_lowercase) || !digits.iter().any(u8::is_ascii_uppercase);
    (is_one_case || checksummed(&address).as_bytes() == digits).then_some(address)
}

/// EIP-55: a letter is a capital where the hash of the small ones has a large digit.
fn checksummed(address: &[u8; 20]) -> String {
    let small: String = address.iter().map(|byte| format!("{byte:02x}")).collect();
    let hash = Keccak256::digest(small.as_bytes());
    let capital = |at: usize| (hash[at / 2] >> (4 * (1 - at % 2))) & 8 != 0;
    let digits = small.chars().enumerate();
    digits
        .map(|(at, digit)| {
            if capital(at) {
                digit.to_ascii_uppercase()
            } else {
                digit
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn solanas_are_base58_of_32_bytes() {
        for good in [
            "11111111111111111111111111111111",
            "So11111111111111111111111111111111111111112",
            "TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA",
            &bs58::encode([255u8; 32]).into_string(),
        ] {
            let wallet = Wallet::parse(good).unwrap();
            assert!(matches!(wallet, Wallet::Solana(_)), "{good}");
            assert_eq!(wallet.to_string(), good);
        }
        for bad in [
            "",
            "1111111111111111111111111111111",   // 31 bytes
            "111111111111111111111111111111111", // 33 bytes
            "0o11111111111111111111111111111111111111112", // 0 is not in the alphabet
            "So1111111111111111111111111111111111111111 ", // nor is a space
            "ééééééééééééééééééé",
        ] {
            assert_eq!(Wallet::parse(bad), None, "{bad}");
        }
        for length in [31, 33] {
            let text = bs58::encode(vec![255u8; length]).into_string();
            assert_eq!(Wallet::parse(&text), None);
        }
        assert_eq!(Wallet::parse(&"1".repeat(1_000_000)), None);
    }

    #[test]
    fn ethereums_have_the_capitals_of_their_standard() {
        // The examples of EIP-55.
        for good in [
            "0x52908400098527886E0F7030069857D2E4169EE7",
            "0x8617E340B3D01FA5F11F306F4090FD50E238070D",
            "0xde709f2102306220921060314715629080e2fb77",
            "0x27b1fdb04752bbc536007a920d24acb045561c26",
            "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
            "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359",
            "0xdbF03B407c01E7cD3CBea99509d93f8DDDC8C6FB",
            "0xD1220A0cf47c7B9Be7A2E6BA89F429762e7b9aDb",
        ] {
            let wallet = Wallet::parse(good).unwrap();
            assert_eq!(wallet.to_string(), good);
            for other in [
                good.to_lowercase(),
                "0x".to_owned() + &good[2..].to_uppercase(),
            ] {
                assert_eq!(Wallet::parse(&other), Some(wallet), "{other}");
            }
        }
        for bad in [
            "0x",
            "0X52908400098527886E0F7030069857D2E4169EE7",
            "0x5AAeb6053F3E94C9b9A09f33669435E7Ef1BeAed", // a capital too many
            "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAe",  // a digit too few
            "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAedd",
            "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAeg",
            "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1Be é",
            "52908400098527886E0F7030069857D2E4169EE7",
        ] {
            assert_eq!(Wallet::parse(bad), None, "{bad}");
        }
    }
}
