//! Where a JPEG begins and ends, without decoding it.
//!
//! In: bytes of a motion JPEG stream in any chunks, or one image. Out: whole JPEGs, or what is wrong. On the
//! `capture-<camera>` threads. Always holds: segments are skipped by their stated length, so a thumbnail inside one is
//! never taken for a frame; never more is kept than one frame of [`MAX_FRAME_BYTES`] and one chunk.

/// A larger frame is an error: 32 MiB is a 100-megapixel JPEG of fine quality.
pub const MAX_FRAME_BYTES: usize = 32 << 20;

/// Width and height in pixels of a whole JPEG, or what is wrong with it.
///
/// Whole means: start of image, a frame header, a scan, and an end of image after the scan began. Bytes after the end
/// are allowed (USB cameras pad). Huffman tables may be missing (UVC).
pub fn inspect(jpeg: &[u8]) -> Result<(u32, u32), &'static str> {
    if jpeg.is_empty() {
        return Err("empty frame");
    }
    if !jpeg.starts_with(&[0xFF, 0xD8]) {
        return Err("no JPEG: it does not start with FF D8");
    }
    let mut at = 2;
    let mut size = None;
    loop {
        match jpeg.get(at..at + 2) {
            Some(&[0xFF, 0xFF]) => at += 1,
            Some(&[0xFF, 0x01 | 0xD0..=0xD7]) => at += 2,
            Some(&[0xFF, 0xD9]) => return Err("JPEG without a picture"),
            Some(&[0xFF, marker]) if marker != 0 && marker != 0xD8 => {
                let Some(&[high, low]) = jpeg.get(at + 2..at + 4) else {
                    return Err("truncated JPEG header");
                };
                let length = usize::from(u16::from_be_bytes([high, low]));
                let Some(body) = jpeg.get(at + 4..at + 2 + length) else {
                    return Err("truncated JPEG header");
                };
                at += 2 + length;
                match marker {
                    _ if is_frame_header(marker) => size = Some(frame_size(body)?),
                    0xDA => break,
                    _ => {}
                }
            }
            Some(_) => return Err("broken JPEG header"),
            None => return Err("truncated JPEG header"),
        }
    }
    // In a scan FF D9 is nothing else; from the back, since padding is short and the scan long.
    let ends = jpeg[at..].windows(2).rev().any(|w| w == [0xFF, 0xD9]);
    match size {
        Some(size) if ends => Ok(size),
        Some(_) => Err("truncated JPEG: no end of image"),
        None => Err("JPEG without a frame header"),
    }
}

/// SOF0 to SOF15, without DHT, JPG and DAC, which lie between them.
fn is_frame_header(marker: u8) -> bool {
    matches!(marker, 0xC0..=0xCF) && !matches!(marker, 0xC4 | 0xC8 | 0xCC)
}

fn frame_size(body: &[u8]) -> Result<(u32, u32), &'static str> {
    match *body {
        [_, h0, h1, w0, w1, ..] => {
            let (w, h) = (u16::from_be_bytes([w0, w1]), u16::from_be_bytes([h0, h1]));
            if w == 0 || h == 0 {
                return Err("JPEG of no width or height");
            }
            Ok((w.into(), h.into()))
        }
        _ => Err("broken JPEG frame header"),
    }
}

/// Cuts a motion JPEG stream into frames.
#[derive(Debug)]
pub struct Splitter {
    buffer: Vec<u8>,
    /// Where the frame at hand begins; before it everything is done with.
    start: usize,
    /// Up to where it was looked at.
    at: usize,
    state: State,
    max_frame_bytes: usize,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    /// Looking for FF D8 FF.
    Between,
    /// At a marker.
    Marker { scan_seen: bool },
    /// In entropy-coded data.
    Scan,
}

/// What [`Splitter::pop`] found.
#[derive(Debug, PartialEq)]
pub enum Popped {
    /// A frame was appended to the buffer given.
    Frame,
    /// Bytes were thrown away: why.
    Bad(&'static str),
    /// More bytes are needed.
    More,
}

impl Default for Splitter {
    fn default() -> Self {
        Self::new(MAX_FRAME_BYTES)
    }
}

impl Splitter {
    /// A splitter that gives up on frames larger than this.
    pub fn new(max_frame_bytes: usize) -> Self {
        Self {
            buffer: Vec::new(),
            start: 0,
            at: 0,
            state: State::Between,
            max_frame_bytes,
        }
    }

    /// Adds bytes. Call [`pop`](Self::pop) until it wants more before adding again: that bounds the memory.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.at -= self.start;
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// Whether a frame has begun and not ended: at the end of the stream it is a truncated one.
    pub fn is_inside(&self) -> bool {
        !matches!(self.state, State::Between)
    }

    /// The next frame, appended to `frame`.
    pub fn pop(&mut self, frame: &mut Vec<u8>) -> Popped {
        if self.state == State::Between {
            let found = self.seek();
            if found.start {
                self.begin();
            }
            if found.passed {
                return Popped::Bad("bytes between frames");
            }
            if !found.start {
                return Popped::More;
            }
        }
        match self.walk() {
            Step::Ended => {
                frame.extend_from_slice(&self.buffer[self.start..self.at]);
                self.start = self.at;
                self.state = State::Between;
                Popped::Frame
            }
            Step::More if self.buffer.len() - self.start > self.max_frame_bytes => {
                // Thrown away as a whole: looking for frames in it again could take as long each time.
                self.start = self.buffer.len();
                self.at = self.start;
                self.state = State::Between;
                Popped::Bad("frame too large")
            }
            Step::More => Popped::More,
            Step::Broken(why) => {
                // The next frame may have begun within what this one claimed.
                self.start += 2;
                self.at = self.start;
                let found = self.seek();
                self.state = State::Between;
                if found.start {
                    self.begin();
                }
                Popped::Bad(why)
            }
            Step::Restarted => Popped::Bad("truncated frame"),
        }
    }

    fn begin(&mut self) {
        self.at = self.start + 2;
        self.state = State::Marker { scan_seen: false };
    }

    /// Moves `start` to the next FF D8 FF, or to where one may still begin.
    fn seek(&mut self) -> Found {
        let from = self.start;
        let rest = &self.buffer[from..];
        let found = rest.windows(3).position(|w| w == [0xFF, 0xD8, 0xFF]);
        let kept = match rest {
            [.., 0xFF, 0xD8] => 2,
            [.., 0xFF] => 1,
            _ => 0,
        };
        self.start = from + found.unwrap_or(rest.len() - kept);
        self.at = self.start;
        // Zeros between frames are padding (USB cameras, block-aligned writers).
        let passed = self.buffer[from..self.start].iter().any(|&b| b != 0);
        Found {
            start: found.is_some(),
            passed,
        }
    }

    /// Goes on through the frame at hand as far as there are bytes.
    fn walk(&mut self) -> Step {
        loop {
            if self.state == State::Scan {
                match self.buffer[self.at.min(self.buffer.len())..]
                    .iter()
                    .position(|&b| b == 0xFF)
                {
                    None => {
                        self.at = self.buffer.len().max(self.at);
                        return Step::More;
                    }
                    Some(n) => self.at += n,
                }
            }
            let Some(&[first, marker]) = self.buffer.get(self.at..self.at + 2) else {
                return Step::More;
            };
            match (first, marker, self.state) {
                (0xFF, 0xFF, _) => self.at += 1,
                (0xFF, 0x00, State::Scan) | (0xFF, 0x01 | 0xD0..=0xD7, _) => self.at += 2,
                (0xFF, 0xD8, _) => {
                    self.start = self.at;
                    self.begin();
                    return Step::Restarted;
                }
                (0xFF, 0xD9, State::Scan | State::Marker { scan_seen: true }) => {
                    self.at += 2;
                    return Step::Ended;
                }
                (0xFF, 0xD9, _) => return Step::Broken("JPEG without a picture"),
                (0xFF, 0x02..=0xFF, state) => {
                    let Some(&[high, low]) = self.buffer.get(self.at + 2..self.at + 4) else {
                        return Step::More;
                    };
                    let length = usize::from(u16::from_be_bytes([high, low]));
                    if length < 2 {
                        return Step::Broken("broken JPEG header");
                    }
                    let end = self.at + 2 + length;
                    if end > self.buffer.len() {
                        return Step::More;
                    }
                    self.at = end;
                    self.state = match (marker, state) {
                        (0xDA, _) => State::Scan,
                        (_, State::Scan) => State::Marker { scan_seen: true },
                        (_, other) => other,
                    };
                }
                _ => return Step::Broken("broken JPEG header"),
            }
        }
    }
}

struct Found {
    start: bool,
    passed: bool,
}

enum Step {
    Ended,
    More,
    /// A new frame began in the middle of this one.
    Restarted,
    Broken(&'static str),
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A whole little JPEG of this size by its header: markers, a thumbnail in APP1, stuffing, a restart marker.
    pub fn tiny_jpeg(width: u16, height: u16, fill: u8) -> Vec<u8> {
        let mut j = vec![0xFF, 0xD8];
        // The thumbnail has a start and an end of image of its own.
        let thumbnail = [0xFF, 0xD8, 0xFF, 0xDA, 0, 2, 1, 2, 3, 0xFF, 0xD9];
        j.extend([0xFF, 0xE1, 0, 2 + thumbnail.len() as u8]);
        j.extend(thumbnail);
        let ([h0, h1], [w0, w1]) = (height.to_be_bytes(), width.to_be_bytes());
        j.extend([0xFF, 0xC0, 0, 8, 8, h0, h1, w0, w1, 0]);
        j.extend([0xFF, 0xFF, 0xDA, 0, 2]);
        j.extend([fill & 0x7F; 40]);
        j.extend([0xFF, 0x00, 1, 0xFF, 0xD0, 2, 3]);
        j.extend([0xFF, 0xC4, 0, 4, 0xFF, 0xD9, 0xFF, 0xDA, 0, 2, fill & 0x7F]);
        j.extend([0xFF, 0xD9]);
        j
    }

    fn split(chunks: &[&[u8]], max: usize) -> (Vec<Vec<u8>>, Vec<&'static str>) {
        let (mut frames, mut bad) = (vec![], vec![]);
        let mut s = Splitter::new(max);
        for chunk in chunks {
            s.push(chunk);
            loop {
                let mut frame = vec![];
                match s.pop(&mut frame) {
                    Popped::Frame => frames.push(frame),
                    Popped::Bad(why) => bad.push(why),
                    Popped::More => break,
                }
            }
            assert!(s.buffer.len() - s.start <= max + chunk.len());
        }
        (frames, bad)
    }

    #[test]
    fn frames_come_out_however_the_bytes_are_cut() {
        let (a, b) = (tiny_jpeg(640, 480, 1), tiny_jpeg(320, 240, 2));
        let stream = [a.clone(), b.clone(), a.clone()].concat();
        for size in 1..stream.len() {
            let chunks: Vec<_> = stream.chunks(size).collect();
            let (frames, bad) = split(&chunks, 1 << 20);
            assert_eq!(
                frames,
                [a.clone(), b.clone(), a.clone()],
                "chunks of {size}"
            );
            assert!(bad.is_empty());
        }
    }

    #[test]
    fn after_damage_the_next_whole_frame_is_found() {
        let (a, b) = (tiny_jpeg(64, 48, 1), tiny_jpeg(32, 24, 2));
        let cases: [(&str, Vec<u8>, usize); 6] = [
            ("garbage first", [b"hello".to_vec(), b.clone()].concat(), 1),
            (
                "truncated in the scan",
                [&a[..a.len() - 20], &b].concat(),
                1,
            ),
            ("truncated in the header", [&a[..6], &b, &b].concat(), 2),
            (
                "an image without a picture",
                [&[0xFF, 0xD8, 0xFF, 0xD9][..], &b].concat(),
                1,
            ),
            (
                "a segment of no length",
                [&[0xFF, 0xD8, 0xFF, 0xE0, 0, 0][..], &b].concat(),
                1,
            ),
            ("a lonely start", [&[0xFF, 0xD8][..], &b].concat(), 1),
        ];
        for (name, bytes, good) in cases {
            let (frames, bad) = split(&[&bytes], 1 << 20);
            assert_eq!(frames, vec![b.clone(); good], "{name}");
            assert!(!bad.is_empty(), "{name}");
        }
        // Zeros are padding, not damage.
        let (frames, bad) = split(&[&[&a[..], &[0; 512], &b].concat()], 1 << 20);
        assert_eq!((frames.len(), bad.len()), (2, 0));
    }

    #[test]
    fn a_frame_that_never_ends_is_thrown_away() {
        let mut endless = tiny_jpeg(64, 48, 1);
        endless.truncate(endless.len() - 2);
        endless.resize(5000, 7);
        let b = tiny_jpeg(32, 24, 2);
        let bytes = [endless, b.clone()].concat();
        let chunks: Vec<_> = bytes.chunks(100).collect();
        let (frames, bad) = split(&chunks, 1000);
        assert_eq!(frames, [b]);
        assert!(bad.contains(&"frame too large"));
    }

    #[test]
    fn whole_images_are_told_from_broken_ones() {
        let whole = tiny_jpeg(640, 480, 1);
        assert_eq!(inspect(&whole), Ok((640, 480)));
        assert_eq!(inspect(&[&whole[..], &[0; 100]].concat()), Ok((640, 480)));
        for (bytes, says) in [
            (&b""[..], "empty"),
            (b"\x89PNG", "no JPEG"),
            (&whole[..whole.len() - 13], "no end"),
            (&whole[..8], "truncated JPEG header"),
            (&[0xFF, 0xD8, 0xFF, 0xD9], "without a picture"),
            (&[0xFF, 0xD8, 7, 7], "broken"),
            (&tiny_jpeg(0, 480, 1), "no width"),
        ] {
            let e = inspect(bytes).unwrap_err();
            assert!(e.contains(says), "{e} instead of {says}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_chunks_do_no_harm(
            bytes in prop::collection::vec(
                prop_oneof![3 => Just(0xFFu8), 2 => Just(0xD8), 1 => Just(0xD9), 1 => Just(0xDA), 2 => Just(0), 2 => any::<u8>()],
                0..4000,
            ),
            size in 1usize..700,
        ) {
            let chunks: Vec<_> = bytes.chunks(size).collect();
            let (frames, _) = split(&chunks, 500);
            for f in frames {
                prop_assert!(f.starts_with(&[0xFF, 0xD8]) && f.ends_with(&[0xFF, 0xD9]));
            }
            let _ = inspect(&bytes);
        }

        #[test]
        fn whole_frames_come_out_exactly(
            fills in prop::collection::vec(any::<u8>(), 1..12),
            size in 1usize..400,
            cut in 0usize..400,
        ) {
            let frames: Vec<_> = fills.iter().map(|&f| tiny_jpeg(64, 48, f)).collect();
            // It begins in the middle of a frame, as when one joins a running stream.
            let stream = [&frames[0][cut.min(frames[0].len())..], &frames.concat()].concat();
            let chunks: Vec<_> = stream.chunks(size).collect();
            let (got, _) = split(&chunks, 1 << 20);
            prop_assert!(got.ends_with(&frames[1.min(frames.len() - 1)..]));
        }
    }
}
