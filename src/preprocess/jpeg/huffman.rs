//! Huffman codes of a JPEG scan, and the bits they are read from.

/// Bits looked up at once: nearly all codes with their magnitudes, in a table of 4 KiB.
const LOOKUP_BITS: u32 = 10;

/// How many short codes a [`Bits::refill`] is enough for.
const SHORT_CODES: u32 = REFILLED / LOOKUP_BITS;

/// One code and, where both fit into [`LOOKUP_BITS`], the value behind it.
///
/// A symbol `run << 4 | size` stands for `run` zeroes and a value of `size` bits.
#[derive(Debug)]
pub(in super::super) struct Huffman {
    /// `value << 16 | advance << 8 | bits`: take `bits` bits, go `advance` coefficients on, the last of which is
    /// `value`. With [`LONG`], if only the code fits: `size << 16 | advance << 8 | bits`, `bits` without the value's. [`LONG`] alone if
    /// not even the code does.
    lookup: [i32; 1 << LOOKUP_BITS],
    /// First code of each length, left-aligned to 16 bits, that is longer.
    limit: [u32; 17],
    /// What to add to a code of each length for its index into `values`.
    offset: [i32; 17],
    values: [u8; 256],
}

/// In an entry of the table: the value is not in it. No `advance` needs this bit.
const LONG: i32 = 1 << 15;
/// At least as many as a block has.
const END_OF_BLOCK: usize = 64;

impl Huffman {
    /// `counts[i]`: how many codes have `i + 1` bits. `None` if there are more codes than fit.
    pub fn new(counts: &[u8; 16], values: &[u8]) -> Option<Self> {
        let mut table = Self {
            lookup: [LONG; 1 << LOOKUP_BITS],
            limit: [0; 17],
            offset: [0; 17],
            values: [0; 256],
        };
        table
            .values
            .get_mut(..values.len())?
            .copy_from_slice(values);
        let (mut code, mut index) = (0u32, 0usize);
        for bits in 1..=16u32 {
            table.offset[bits as usize] = index as i32 - code as i32;
            for _ in 0..counts[bits as usize - 1] {
                if code >= 1 << bits {
                    return None;
                }
                table.fill(code, bits, values[index]);
                code += 1;
                index += 1;
            }
            table.limit[bits as usize] = code << (16 - bits);
            code <<= 1;
        }
        Some(table)
    }

    fn fill(&mut self, code: u32, bits: u32, symbol: u8) {
        if bits > LOOKUP_BITS {
            return;
        }
        let size = u32::from(symbol & 15);
        let advance = (advance(symbol) as i32) << 8;
        let mut fill = |first: u32, bits: u32, entry: i32| {
            let free = LOOKUP_BITS - bits;
            self.lookup[(first << free) as usize..][..1 << free].fill(entry);
        };
        let all = bits + size;
        if all > LOOKUP_BITS {
            return fill(
                code,
                bits,
                LONG | (size as i32) << 16 | advance | bits as i32,
            );
        }
        for magnitude in 0..1u32 << size {
            let value = extend(magnitude, size) << 16;
            fill(code << size | magnitude, all, value | advance | all as i32);
        }
    }

    /// The code that these bits begin with, whatever its length.
    fn find(&self, bits: u64) -> Option<Symbol> {
        let code = (bits >> 48) as u32;
        let bits = (1..=16).find(|&b| code < self.limit[b as usize])?;
        let index = (code >> (16 - bits)) as i32 + self.offset[bits as usize];
        let symbol = *self.values.get(usize::try_from(index).ok()?)?;
        Some(Symbol {
            bits,
            advance: advance(symbol),
            size: u32::from(symbol & 15),
        })
    }
}

/// A code without its value.
struct Symbol {
    bits: u32,
    advance: usize,
    size: u32,
}

/// Zero coefficients and the one behind them; 16 zeroes; or the rest of the block.
fn advance(symbol: u8) -> usize {
    if symbol == 0 {
        END_OF_BLOCK
    } else {
        usize::from(symbol >> 4) + 1
    }
}

/// JPEG's signed numbers: the upper half of `size` bits is positive.
fn extend(magnitude: u32, size: u32) -> i32 {
    if size == 0 {
        0
    } else if magnitude >> (size - 1) == 1 {
        magnitude as i32
    } else {
        magnitude as i32 - (1 << size) + 1
    }
}

/// The scan's bits; zeroes behind its end.
///
/// Small, and handed over by value where it is not inlined: it lives in registers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bits<'a> {
    /// What is not yet in `bits`.
    rest: &'a [u8],
    /// Left-aligned. Behind the first `count` are zeroes, or bits of `rest`'s first byte.
    bits: u64,
    count: u32,
    /// How many of `count` were never in the data.
    missing: u32,
}

/// Bits at hand after [`Bits::refill`]. The longest code and its value have 31.
const REFILLED: u32 = 56;

impl<'a> Bits<'a> {
    pub fn new(data: &'a [u8]) -> Self {
        Self {
            rest: data,
            bits: 0,
            count: 0,
            missing: 0,
        }
    }

    /// At least [`REFILLED`] bits.
    #[inline(always)]
    fn refill(&mut self) {
        if let Some(eight) = self.rest.first_chunk() {
            let word = u64::from_be_bytes(*eight);
            const LOW: u64 = 0x0101_0101_0101_0101;
            // No byte is FF, that is, no byte of the complement is 0.
            if (!word).wrapping_sub(LOW) & word & (LOW << 7) == 0 {
                self.bits |= word >> self.count;
                let bytes = (63 - self.count) / 8;
                self.count += bytes * 8;
                self.rest = &self.rest[bytes as usize..];
                return;
            }
        }
        *self = self.refilled_slowly();
    }

    #[cold]
    #[inline(never)]
    fn refilled_slowly(mut self) -> Self {
        while self.count < REFILLED {
            let byte = match *self.rest {
                [0xff, 0, ref rest @ ..] => {
                    self.rest = rest;
                    0xff
                }
                // A marker: the bits end here.
                [0xff, ..] | [] => {
                    self.missing += 8;
                    0
                }
                [byte, ref rest @ ..] => {
                    self.rest = rest;
                    byte
                }
            };
            self.bits |= u64::from(byte) << (56 - self.count);
            self.count += 8;
        }
        self
    }

    #[inline(always)]
    fn take(&mut self, n: u32) {
        self.bits <<= n;
        self.count -= n;
    }

    /// Whether bits were read that the data does not have.
    pub fn overrun(&self) -> bool {
        self.count < self.missing
    }

    /// The table's entry for the next code, which is taken if it is short.
    #[inline(always)]
    fn look_up(&mut self, table: &Huffman) -> i32 {
        let entry = table.lookup[(self.bits >> (64 - LOOKUP_BITS)) as usize];
        if entry & LONG == 0 {
            self.take(entry as u32 & 0xff);
        }
        entry
    }

    /// The code that [`look_up`](Self::look_up) has not taken, with its value: it may need more bits than there are.
    #[inline(never)]
    fn long(mut self, table: &Huffman, entry: i32) -> Option<(Self, usize, i32)> {
        self.refill();
        let symbol = if entry == LONG {
            table.find(self.bits)?
        } else {
            Symbol {
                bits: entry as u32 & 0xff,
                advance: (entry >> 8 & 0x7f) as usize,
                size: entry as u32 >> 16,
            }
        };
        self.take(symbol.bits);
        let magnitude = (self.bits >> 32 >> (32 - symbol.size)) as u32;
        self.take(symbol.size);
        Some((self, symbol.advance, extend(magnitude, symbol.size)))
    }

    /// The next DC difference. `None`: no such code.
    #[inline(always)]
    pub fn next_dc(&mut self, table: &Huffman) -> Option<i32> {
        self.refill();
        let entry = self.look_up(table);
        if entry & LONG == 0 {
            return Some(entry >> 16);
        }
        let value;
        (*self, _, value) = self.long(table, entry)?;
        Some(value)
    }

    /// The rest of a block: calls `each` with the index in the scan's order, 1 to 63, and the value of each coefficient that has a code. Zeroes
    /// have none, but for every 16th in a row. `None`: no such code.
    #[inline(always)]
    pub fn next_ac(&mut self, table: &Huffman, mut each: impl FnMut(usize, i32)) -> Option<()> {
        let mut index = 0;
        loop {
            self.refill();
            for _ in 0..SHORT_CODES {
                let entry = self.look_up(table);
                let long = entry & LONG != 0;
                let (mut advance, mut value) = ((entry >> 8 & 0xff) as usize, entry >> 16);
                if long {
                    (*self, advance, value) = self.long(table, entry)?;
                }
                index += advance;
                if index >= 64 {
                    return Some(());
                }
                each(index, value);
                if index == 63 {
                    return Some(());
                }
                if long {
                    break;
                }
            }
        }
    }

    /// Goes on behind the restart marker that must be here.
    pub fn restart(&mut self) -> Option<()> {
        // The bits already taken from the data are padding, if fewer than 8.
        if self.count - self.missing.min(self.count) >= 8 {
            return None;
        }
        let fill = self.rest.iter().take_while(|&&b| b == 0xff).count();
        if fill == 0 || !matches!(self.rest.get(fill), Some(0xd0..=0xd7)) {
            return None;
        }
        *self = Self::new(&self.rest[fill + 1..]);
        Some(())
    }
}

// ITU-T T.81, annex K.3.

pub(super) fn standard_dc(chroma: bool) -> Huffman {
    let counts = if chroma {
        [0, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0]
    } else {
        [0, 1, 5, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0]
    };
    Huffman::new(&counts, &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]).expect("the standard's table")
}

pub(super) fn standard_ac(chroma: bool) -> Huffman {
    let (counts, values) = if chroma {
        (&CHROMA_AC_COUNTS, &CHROMA_AC)
    } else {
        (&LUMA_AC_COUNTS, &LUMA_AC)
    };
    Huffman::new(counts, values).expect("the standard's table")
}

const LUMA_AC_COUNTS: [u8; 16] = [0, 2, 1, 3, 3, 2, 4, 3, 5, 5, 4, 4, 0, 0, 1, 125];
#[rustfmt::skip]
const LUMA_AC: [u8; 162] = [
    0x01, 0x02, 0x03, 0x00, 0x04, 0x11, 0x05, 0x12, 0x21, 0x31, 0x41, 0x06, 0x13, 0x51, 0x61, 0x07, 0x22, 0x71,
    0x14, 0x32, 0x81, 0x91, 0xa1, 0x08, 0x23, 0x42, 0xb1, 0xc1, 0x15, 0x52, 0xd1, 0xf0, 0x24, 0x33, 0x62, 0x72,
    0x82, 0x09, 0x0a, 0x16, 0x17, 0x18, 0x19, 0x1a, 0x25, 0x26, 0x27, 0x28, 0x29, 0x2a, 0x34, 0x35, 0x36, 0x37,
    0x38, 0x39, 0x3a, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48, 0x49, 0x4a, 0x53, 0x54, 0x55, 0x56, 0x57, 0x58, 0x59,
    0x5a, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69, 0x6a, 0x73, 0x74, 0x75, 0x76, 0x77, 0x78, 0x79, 0x7a, 0x83,
    0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8a, 0x92, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99, 0x9a, 0xa2, 0xa3,
    0xa4, 0xa5, 0xa6, 0xa7, 0xa8, 0xa9, 0xaa, 0xb2, 0xb3, 0xb4, 0xb5, 0xb6, 0xb7, 0xb8, 0xb9, 0xba, 0xc2, 0xc3,
    0xc4, 0xc5, 0xc6, 0xc7, 0xc8, 0xc9, 0xca, 0xd2, 0xd3, 0xd4, 0xd5, 0xd6, 0xd7, 0xd8, 0xd9, 0xda, 0xe1, 0xe2,
    0xe3, 0xe4, 0xe5, 0xe6, 0xe7, 0xe8, 0xe9, 0xea, 0xf1, 0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xf7, 0xf8, 0xf9, 0xfa,
];

const CHROMA_AC_COUNTS: [u8; 16] = [0, 2, 1, 2, 4, 4, 3, 4, 7, 5, 4, 4, 0, 1, 2, 119];
#[rustfmt::skip]
const CHROMA_AC: [u8; 162] = [
    0x00, 0x01, 0x02, 0x03, 0x11, 0x04, 0x05, 0x21, 0x31, 0x06, 0x12, 0x41, 0x51, 0x07, 0x61, 0x71, 0x13, 0x22,
    0x32, 0x81, 0x08, 0x14, 0x42, 0x91, 0xa1, 0xb1, 0xc1, 0x09, 0x23, 0x33, 0x52, 0xf0, 0x15, 0x62, 0x72, 0xd1,
    0x0a, 0x16, 0x24, 0x34, 0xe1, 0x25, 0xf1, 0x17, 0x18, 0x19, 0x1a, 0x26, 0x27, 0x28, 0x29, 0x2a, 0x35, 0x36,
    0x37, 0x38, 0x39, 0x3a, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48, 0x49, 0x4a, 0x53, 0x54, 0x55, 0x56, 0x57, 0x58,
    0x59, 0x5a, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69, 0x6a, 0x73, 0x74, 0x75, 0x76, 0x77, 0x78, 0x79, 0x7a,
    0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8a, 0x92, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99, 0x9a,
    0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7, 0xa8, 0xa9, 0xaa, 0xb2, 0xb3, 0xb4, 0xb5, 0xb6, 0xb7, 0xb8, 0xb9, 0xba,
    0xc2, 0xc3, 0xc4, 0xc5, 0xc6, 0xc7, 0xc8, 0xc9, 0xca, 0xd2, 0xd3, 0xd4, 0xd5, 0xd6, 0xd7, 0xd8, 0xd9, 0xda,
    0xe2, 0xe3, 0xe4, 0xe5, 0xe6, 0xe7, 0xe8, 0xe9, 0xea, 0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xf7, 0xf8, 0xf9, 0xfa,
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Bit by bit, from the definition; zeroes behind the end or a marker.
    struct Plain {
        bits: Vec<u64>,
        at: usize,
    }

    impl Plain {
        fn new(data: &[u8]) -> Self {
            let mut bits = Vec::new();
            let mut rest = data;
            while let [byte, tail @ ..] = rest {
                rest = match (byte, tail) {
                    (0xff, [0, tail @ ..]) => tail,
                    (0xff, _) => break,
                    _ => tail,
                };
                bits.extend((0..8).rev().map(|k| u64::from(byte >> k & 1)));
            }
            Self { bits, at: 0 }
        }

        fn peek(&self, n: usize) -> u64 {
            let bit = |k| self.bits.get(self.at + k).copied().unwrap_or(0);
            (0..n).fold(0, |value, k| value << 1 | bit(k))
        }

        fn next(&mut self, table: &Huffman) -> Option<(usize, i32)> {
            let symbol = table.find(self.peek(64))?;
            self.at += symbol.bits as usize;
            let magnitude = self.peek(symbol.size as usize) as u32;
            self.at += symbol.size as usize;
            Some((symbol.advance, extend(magnitude, symbol.size)))
        }

        fn block(&mut self, dc: &Huffman, ac: &Huffman) -> Option<Vec<(usize, i32)>> {
            let mut found = vec![(0, self.next(dc)?.1)];
            let mut index = 0;
            while index < 63 {
                let (advance, value) = self.next(ac)?;
                index += advance;
                if index < 64 {
                    found.push((index, value));
                }
            }
            Some(found)
        }
    }

    /// Bytes with more FF, stuffed and as markers, than chance has.
    fn scan() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            20 => any::<u8>().prop_map(|b| vec![b]),
            2 => Just(vec![0xff, 0]),
            1 => Just(vec![0xff]),
        ];
        prop::collection::vec(piece, 0..200).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn short_and_long_codes_are_read_as_bit_by_bit(data in scan(), chroma: bool) {
            let (dc, ac) = (standard_dc(chroma), standard_ac(chroma));
            let (mut bits, mut plain) = (Bits::new(&data), Plain::new(&data));
            loop {
                let mut found = Vec::new();
                let done = bits.next_dc(&dc).and_then(|value| {
                    found.push((0, value));
                    bits.next_ac(&ac, |index, value| found.push((index, value)))
                });
                let wanted = plain.block(&dc, &ac);
                prop_assert_eq!(done.map(|()| found), wanted.clone());
                if wanted.is_none() {
                    break;
                }
                let over = plain.at > plain.bits.len();
                prop_assert_eq!(bits.overrun(), over);
                if over {
                    break;
                }
            }
        }
    }
}
