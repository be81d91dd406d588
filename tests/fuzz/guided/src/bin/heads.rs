//! The head of a request for a WebSocket: as a whole, or not yet.
#![no_main]

use fanfare::http::upgrade;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let Some((length, request)) = upgrade::whole(&input.to_vec().into()) else {
        return;
    };
    assert!(length <= input.len() && matches!(request.uri().path(), "/ws" | "/"));
    let _ = upgrade::offered(&request);
    for part in [length / 2, length.saturating_sub(1)] {
        assert!(
            upgrade::whole(&input[..part].to_vec().into()).is_none(),
            "{part}"
        );
    }
});
