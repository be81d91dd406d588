//! What waits to be written to one socket: whole frames, bounded in bytes, with a cursor into the
//! first one where the kernel took only a part.

use std::collections::VecDeque;

use super::Frame;

/// What a waiting frame takes beside its bytes: its place in the queue, its count, the allocator's part.
/// Without it, a peer that sends pings and reads nothing makes us keep twenty times the bound in pongs.
const FRAME_OVERHEAD: usize = 48;

/// Frames for which room is made at once when there is more than one.
const REST_FRAMES: usize = 16;

/// A queue of frames. Holds no memory while it is empty, and none of its own for a single one: that
/// is what nearly every delivery is.
#[derive(Debug, Default)]
pub struct Outbox {
    /// Is to be written first; `None` if nothing waits.
    first: Option<Frame>,
    /// The others. Empty, and without memory, if there is no first.
    rest: VecDeque<Frame>,
    /// Bytes of the first frame that are already written. Less than its length; 0 without frames.
    written: usize,
    /// Bytes still to be written: the lengths of all frames less `written`.
    bytes: usize,
}

/// More would wait than may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

impl Outbox {
    /// Adds a frame unless the queue would take more than `bytes_max` of memory then. A queue without
    /// a byte in it takes a frame of any size.
    pub fn push(&mut self, frame: &Frame, bytes_max: usize) -> Result<(), Full> {
        if self.bytes > 0 {
            let overhead = (1 + self.rest.len() + 1) * FRAME_OVERHEAD;
            if self.bytes + frame.len() + overhead > bytes_max {
                return Err(Full);
            }
        }
        self.push_last_words(frame);
        Ok(())
    }

    /// Adds a frame whatever waits: for what is said at the end of a connection, once.
    pub fn push_last_words(&mut self, frame: &Frame) {
        if frame.is_empty() {
            return;
        }
        self.bytes += frame.len();
        if self.first.is_none() {
            self.first = Some(frame.clone());
            return;
        }
        if self.rest.capacity() == 0 {
            // Where there is a second there are often more.
            self.rest.reserve(REST_FRAMES);
        }
        self.rest.push_back(frame.clone());
    }

    /// Bytes that wait.
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether nothing waits.
    pub const fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// The unwritten part of the first frame, if it is all that waits or is at least `alone_bytes`
    /// long: then it is written from where it lies.
    pub fn first(&self, alone_bytes: usize) -> Option<&[u8]> {
        let first = &self.first.as_ref()?[self.written..];
        (self.rest.is_empty() || first.len() >= alone_bytes).then_some(first)
    }

    /// Appends unwritten bytes to `scratch`, in order, up to about `bytes_max`.
    pub fn copy_to(&self, scratch: &mut Vec<u8>, bytes_max: usize) {
        let mut skip = self.written;
        for frame in self.first.iter().chain(&self.rest) {
            if scratch.len() >= bytes_max {
                break;
            }
            scratch.extend_from_slice(&frame[skip..]);
            skip = 0;
        }
    }

    /// Forgets `count` bytes that the kernel took.
    pub fn consume(&mut self, mut count: usize) {
        debug_assert!(count <= self.bytes);
        if count == self.bytes {
            // As nearly always.
            (self.first, self.written, self.bytes) = (None, 0, 0);
            if self.rest.capacity() > 0 {
                self.rest = VecDeque::new();
            }
            return;
        }
        self.bytes -= count;
        while let Some(first) = &self.first {
            let left = first.len() - self.written;
            if count < left {
                self.written += count;
                return;
            }
            count -= left;
            self.written = 0;
            self.first = self.rest.pop_front();
        }
    }

    /// Drops every frame of which no byte is written; what the peer gets stays whole frames.
    pub fn discard_unsent(&mut self) {
        self.rest = VecDeque::new();
        if self.written == 0 {
            self.first = None;
        }
        let first = self.first.as_ref();
        self.bytes = first.map_or(0, |first| first.len() - self.written);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(outbox: &mut Outbox, step: usize) -> Vec<u8> {
        let mut all = Vec::new();
        while !outbox.is_empty() {
            let mut scratch = Vec::new();
            match outbox.first(1_000) {
                Some(first) => scratch.extend_from_slice(first),
                None => outbox.copy_to(&mut scratch, 7),
            }
            let taken = scratch.len().min(step);
            all.extend_from_slice(&scratch[..taken]);
            outbox.consume(taken);
        }
        all
    }

    #[test]
    fn bytes_leave_in_order_whatever_the_kernel_takes() {
        for step in 1..40 {
            let mut outbox = Outbox::default();
            for text in ["one", "two", "three", "x"] {
                outbox.push(&Frame::text(text), 1_000).unwrap();
            }
            assert_eq!(outbox.bytes(), 5 + 5 + 7 + 3);
            assert_eq!(
                drain(&mut outbox, step),
                b"\x81\x03one\x81\x03two\x81\x05three\x81\x01x"
            );
            assert_eq!(outbox.rest.capacity(), 0);
        }
    }

    #[test]
    fn the_bound_is_in_memory_and_a_single_frame_always_fits() {
        let two = 12 + 2 + 2 * FRAME_OVERHEAD;
        let mut outbox = Outbox::default();
        assert_eq!(outbox.push(&Frame::text("0123456789"), 5), Ok(()));
        assert_eq!(outbox.push(&Frame::text(""), two - 1), Err(Full));
        assert_eq!(outbox.push(&Frame::text(""), two), Ok(()));
        assert_eq!(outbox.push(&Frame::text(""), two), Err(Full));
    }

    #[test]
    fn last_words_never_cut_a_frame_in_two() {
        let mut outbox = Outbox::default();
        outbox.push(&Frame::text("started"), 1_000).unwrap();
        outbox.push(&Frame::text("never sent"), 1_000).unwrap();
        outbox.consume(4);
        outbox.discard_unsent();
        outbox.push_last_words(&Frame::text("bye"));
        assert_eq!(drain(&mut outbox, 3), b"arted\x81\x03bye");

        outbox.push(&Frame::text("never sent"), 1_000).unwrap();
        outbox.discard_unsent();
        assert!(outbox.is_empty());
    }
}
