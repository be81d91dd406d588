//! What several peers send to one engine.
#![no_main]

#[path = "../../../engines.rs"]
mod engines;

libfuzzer_sys::fuzz_target!(|input: &[u8]| engines::agree(input));
