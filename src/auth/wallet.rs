//! Wallets: what a Solana address looks like.

/// Base58 of 32 bytes has at most so many characters.
const MAX_ADDRESS_BYTES: usize = 44;

/// Whether `text` is a Solana address: base58 (Bitcoin's alphabet) of exactly 32 bytes.
pub fn is_address(text: &str) -> bool {
    let mut decoded = [0u8; MAX_ADDRESS_BYTES];
    // 32 bytes are at least 32 characters (a zero byte is one `1`).
    (32..=MAX_ADDRESS_BYTES).contains(&text.len())
        && bs58::decode(text).onto(&mut decoded[..]) == Ok(32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_base58_of_32_bytes() {
        for good in [
            "11111111111111111111111111111111",
            "So11111111111111111111111111111111111111112",
            "TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA",
        ] {
            assert!(is_address(good), "{good}");
        }
        assert!(is_address(&bs58::encode([255u8; 32]).into_string()));
        for bad in [
            "",
            "1111111111111111111111111111111",   // 31 bytes
            "111111111111111111111111111111111", // 33 bytes
            "0o11111111111111111111111111111111111111112", // 0 is not in the alphabet
            "So1111111111111111111111111111111111111111 ", // nor is a space
            "0x52908400098527886E0F7030069857D2E4169EE7", // Ethereum's
            "ééééééééééééééééééé",
        ] {
            assert!(!is_address(bad), "{bad}");
        }
        assert!(!is_address(&bs58::encode([255u8; 33]).into_string()));
        assert!(!is_address(&bs58::encode([255u8; 31]).into_string()));
        assert!(!is_address(&"1".repeat(1_000_000)));
    }
}
