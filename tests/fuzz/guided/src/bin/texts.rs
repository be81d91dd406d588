//! Short texts from outside: keys of channels, wallets, places in streams, traces.
#![no_main]

use fanfare::auth::wallet::Wallet;
use fanfare::protocol::{ChannelKey, event_stream};
use fanfare::trace::Context;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let _ = Context::parse(input);
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    if let Ok(key) = ChannelKey::parse(text, 255) {
        assert_eq!(key.as_str(), text);
        assert_eq!(format!("{}_{}", key.kind(), key.id()), text);
    }
    if let Some(wallet) = Wallet::parse(text) {
        assert_eq!(Wallet::parse(&wallet.to_string()), Some(wallet));
    }
    for (key, position) in event_stream::parse_id(text).unwrap_or_default() {
        assert!(key.len() <= text.len() && position.epoch.as_str().len() <= 64);
    }
});
