//! What the engine says, and that one for many connections says what a machine for each would say.

use super::*;

/// xorshift64 (Marsaglia 2003).
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// A client's frame with a mask of zeros.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first, 0x80 | payload.len() as u8, 0, 0, 0, 0];
    bytes.extend_from_slice(payload);
    bytes
}

/// All that `bytes` amount to, handed over `step` bytes at a time, and what was answered.
fn receive(bytes: &[u8], step: usize) -> (Vec<Received>, Vec<u8>) {
    let (mut engine, mut dialogue) = (Engine::new(100), Dialogue::default());
    let (mut all, mut out) = (Vec::new(), Vec::new());
    for mut chunk in bytes.chunks(step) {
        loop {
            match engine.receive(&mut dialogue, &mut chunk, &mut out) {
                Received::NeedInput => break,
                failed @ Received::Failed(_) => {
                    all.push(failed);
                    return (all, out);
                }
                Received::Closing => {
                    all.push(Received::Closing);
                    return (all, out);
                }
                received => all.push(received),
            }
        }
    }
    (all, out)
}

#[test]
fn messages_arrive_whole_however_they_were_cut() {
    let mut bytes = frame(0x81, b"one");
    bytes.extend(frame(0x01, b"tw"));
    bytes.extend(frame(0x89, b"p"));
    bytes.extend(frame(0x80, b"o"));
    bytes.extend(frame(0x8a, b""));
    bytes.extend(frame(0x82, b"x"));
    for step in 1..bytes.len() {
        let (all, out) = receive(&bytes, step);
        let expected = [
            Received::Text("one".into()),
            Received::Text("two".into()),
            Received::Pong,
            Received::Binary,
        ];
        assert_eq!(all, expected, "in steps of {step}");
        assert_eq!(out, b"\x8a\x01p", "in steps of {step}");
    }
}

#[test]
fn every_way_to_break_the_protocol_has_its_close() {
    let unmasked = [0x81, 1, b'x'];
    assert_eq!(receive(&unmasked, 9).0, [Received::Failed(Close::Protocol)]);
    assert_eq!(
        receive(&frame(0xf1, b"x"), 9).0,
        [Received::Failed(Close::Protocol)]
    );
    assert_eq!(
        receive(&frame(0x83, b"x"), 9).0,
        [Received::Failed(Close::Protocol)]
    );
    assert_eq!(
        receive(&frame(0x81, b"\xff"), 9).0,
        [Received::Failed(Close::NotUtf8)]
    );
    assert_eq!(
        receive(&frame(0x81, &[b'x'; 101]), 200).0,
        [Received::Failed(Close::TooBig)]
    );
    let announced = [
        0x81, 0xff, 0x7f, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 0,
    ];
    assert_eq!(receive(&announced, 99).0, [Received::Failed(Close::TooBig)]);
}

#[test]
fn a_close_is_answered_with_its_code() {
    let (all, out) = receive(&frame(0x88, &[0x03, 0xe8]), 99);
    assert_eq!(all, [Received::Closing]);
    assert_eq!(out, [0x88, 2, 0x03, 0xe8]);
}

#[test]
fn a_close_with_a_code_that_must_not_be_sent_breaks_the_protocol() {
    let close = |code: u16, mask: [u8; 4]| {
        let payload = code.to_be_bytes().into_iter().chain(*b"why");
        let masked = payload
            .zip(mask.iter().cycle())
            .map(|(byte, mask)| byte ^ mask);
        [0x88, 0x85]
            .into_iter()
            .chain(mask)
            .chain(masked)
            .collect::<Vec<u8>>()
    };
    for mask in [[0; 4], [0x12, 0x34, 0x56, 0x78]] {
        for code in [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65_535] {
            for step in [1, 99] {
                let (all, out) = receive(&close(code, mask), step);
                assert_eq!(all, [Received::Failed(Close::Protocol)], "{code}");
                assert!(out.is_empty(), "{code}: what is said about it comes later");
            }
        }
        // Its length need not be written as short as it could be.
        let long = [&[0x88, 0xfe, 0, 5], &close(1005, mask)[2..]].concat();
        assert_eq!(receive(&long, 99).0, [Received::Failed(Close::Protocol)]);
        for code in [1000, 1001, 1003, 1011, 3000, 4100, 4999] {
            let (all, out) = receive(&close(code, mask), 99);
            assert_eq!(all, [Received::Closing], "{code}");
            assert_eq!(out[2..4], code.to_be_bytes(), "{code}");
        }
    }
}

#[test]
fn after_our_close_nothing_may_be_sent_and_the_peers_reply_ends_it() {
    let (mut engine, mut dialogue) = (Engine::new(100), Dialogue::default());
    let mut out = Vec::new();
    assert!(dialogue.may_send());
    engine.close(&mut dialogue, Close::TokenExpired, &mut out);
    assert_eq!(
        out,
        [&[0x88, 15, 0x10, 0x05][..], b"token expired"].concat()
    );
    assert!(!dialogue.may_send());
    engine.close(&mut dialogue, Close::Revoked, &mut out);
    assert_eq!(out.len(), 17, "only one close frame is sent");
    let reply = frame(0x88, &[0x10, 0x05]);
    assert_eq!(
        engine.receive(&mut dialogue, &mut &reply[..], &mut out),
        Received::Closing
    );
}

#[test]
fn after_a_failure_the_close_can_still_be_said() {
    let (mut engine, mut dialogue) = (Engine::new(100), Dialogue::default());
    let mut out = Vec::new();
    let bad = [0x81, 1, b'x'];
    assert_eq!(
        engine.receive(&mut dialogue, &mut &bad[..], &mut out),
        Received::Failed(Close::Protocol)
    );
    engine.close(&mut dialogue, Close::Protocol, &mut out);
    assert_eq!(&out[..4], [0x88, 16, 0x03, 0xea]);
}

/// One engine, many connections that come and go in the middle of messages and frames.
#[test]
fn connections_do_not_hear_each_other_and_forget_what_has_ended() {
    let mut whole = frame(0x01, b"a");
    whole.extend(frame(0x89, b"p"));
    whole.extend(frame(0x00, b"b"));
    whole.extend(frame(0x80, b"c"));
    let mut engine = Engine::new(100);
    let (mut one, mut out) = (Dialogue::default(), Vec::new());
    for cut in 1..whole.len() {
        let (mut first, mut second) = whole.split_at(cut);
        assert_eq!(
            engine.receive(&mut one, &mut first, &mut out),
            Received::NeedInput
        );
        assert!(one.0.is_some());
        let mut other = Dialogue::default();
        let text = frame(0x81, b"other");
        assert_eq!(
            engine.receive(&mut other, &mut &text[..], &mut out),
            Received::Text("other".into())
        );
        assert!(other.0.is_none());
        // A continuation of nothing is a mistake of its own, whoever else is in the middle.
        let mut stray = &whole[whole.len() - 7..];
        assert_eq!(
            engine.receive(&mut other, &mut stray, &mut out),
            Received::Failed(Close::Protocol)
        );
        assert_eq!(
            engine.receive(&mut one, &mut second, &mut out),
            Received::Text("abc".into())
        );
        assert!(one.0.is_none(), "cut at {cut}");
    }
}

#[test]
fn what_is_kept_of_a_connection_is_small() {
    assert_eq!(size_of::<Dialogue>(), 8);
    let (mut engine, mut dialogue) = (Engine::new(100), Dialogue::default());
    let mut out = Vec::new();
    // The size that a frame announces is not what is kept for it.
    let announced = [0x81, 0x80 | 100, 0, 0];
    let received = engine.receive(&mut dialogue, &mut &announced[..], &mut out);
    assert_eq!(received, Received::NeedInput);
    assert!(dialogue.0.unwrap().frame.capacity() < 16);
}

/// As a connection heard it when it had a machine of its own, for good.
fn receive_alone(bytes: &[u8], step: usize) -> (Vec<Received>, Vec<u8>) {
    let mut alone = context(100);
    let (mut all, mut out) = (Vec::new(), Vec::new());
    for mut input in bytes.chunks(step) {
        loop {
            let memory = &mut Memory {
                input: &mut input,
                out: &mut out,
            };
            let received = match alone.read(memory) {
                Ok(Message::Text(text)) => Received::Text(text),
                Ok(Message::Binary(_)) => Received::Binary,
                Ok(Message::Pong(_)) => Received::Pong,
                Ok(Message::Ping(_) | Message::Frame(_)) => continue,
                Ok(Message::Close(_)) => {
                    let _ = alone.flush(memory);
                    Received::Closing
                }
                Err(Error::Io(_)) => break,
                Err(Error::Capacity(_)) => Received::Failed(Close::TooBig),
                Err(Error::Utf8(_)) => Received::Failed(Close::NotUtf8),
                Err(_) => Received::Failed(Close::Protocol),
            };
            let ends = matches!(received, Received::Closing | Received::Failed(_));
            all.push(received);
            if ends {
                return (all, out);
            }
        }
    }
    (all, out)
}

/// Mostly what a client may send, cut and mixed as it likes; sometimes what it may not.
fn some_frames(dice: &mut Dice) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut fragmented = false;
    for _ in 0..1 + dice.below(12) {
        let fin = dice.below(3) > 0;
        let kind = match dice.below(40) {
            0..10 if fragmented => 0x0,
            0..10 => 0x1 + dice.below(2) as u8,
            10..20 => 0x9,
            20..30 => 0xa,
            30 => 0x8,
            31 => dice.below(16) as u8,
            _ if fragmented => 0x0,
            _ => 0x1,
        };
        let is_data = kind < 8;
        if is_data {
            fragmented = !fin;
        }
        let longest = if dice.below(20) == 0 { 300 } else { 40 };
        let length = dice.below(longest) as usize;
        let mut payload = vec![b'a' + dice.below(26) as u8; length];
        if dice.below(60) == 0 {
            payload.fill(0xff);
        }
        if kind == 0x8
            && let Some(code) = payload.first_chunk_mut()
        {
            // What follows a wrong one is ours to say, not tungstenite's.
            *code = 1000_u16.to_be_bytes();
        }
        let mut first = kind | if fin || !is_data { 0x80 } else { 0 };
        if dice.below(80) == 0 {
            first |= 0x10 << dice.below(3);
        }
        let masked = if dice.below(80) == 0 { 0 } else { 0x80 };
        bytes.push(first);
        match length {
            0..126 => bytes.push(masked | length as u8),
            _ => {
                bytes.push(masked | 126);
                bytes.extend_from_slice(&(length as u16).to_be_bytes());
            }
        }
        if masked > 0 {
            bytes.extend_from_slice(&[0; 4]);
        }
        bytes.extend_from_slice(&payload);
    }
    bytes
}

#[test]
fn one_engine_for_many_says_what_a_machine_for_each_would_say() {
    let seed = 1 + u64::from(std::process::id());
    println!("seed {seed}");
    let mut dice = Dice(seed);
    for round in 0..3_000 {
        let bytes = some_frames(&mut dice);
        let step = 1 + dice.below(bytes.len() as u64 + 20) as usize;
        assert_eq!(
            receive(&bytes, step),
            receive_alone(&bytes, step),
            "round {round}, in steps of {step}: {bytes:02x?}"
        );
    }
}
