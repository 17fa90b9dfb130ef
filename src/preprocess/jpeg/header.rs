//! A JPEG's markers, up to the first scan.

use super::huffman::{self, Huffman};

/// What the scan needs to be decoded.
#[derive(Debug)]
pub(in super::super) struct Header {
    /// Width and height in pixels, not 0.
    pub size: (u32, u32),
    /// In the frame header's order.
    pub components: Vec<Component>,
    /// Dequantization, in zigzag order.
    pub quant: [Option<[f32; 64]>; 4],
    pub dc: [Option<Box<Huffman>>; 4],
    pub ac: [Option<Box<Huffman>>; 4],
    /// MCUs between restart markers; 0: none.
    pub restart_interval: usize,
    /// Where the entropy-coded bytes begin.
    pub scan_start: usize,
    /// Whether [`super::scan`] can read it: baseline, one scan with all components, Y Cb Cr or grey.
    pub simple: bool,
}

#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Component {
    id: u8,
    pub h: u8,
    pub v: u8,
    pub quant: usize,
    pub dc: usize,
    pub ac: usize,
}

pub(in super::super) fn parse(data: &[u8]) -> Result<Header, String> {
    if !data.starts_with(&[0xff, 0xd8]) {
        return Err(if data.is_empty() {
            "no bytes"
        } else {
            "no JPEG start marker (FF D8)"
        }
        .into());
    }
    let mut header = Header {
        size: (0, 0),
        components: Vec::new(),
        quant: [None; 4],
        dc: Default::default(),
        ac: Default::default(),
        restart_interval: 0,
        scan_start: 0,
        simple: false,
    };
    let mut baseline = false;
    let mut rgb = false;
    let mut at = 2;
    loop {
        // Any number of FF may stand before a marker.
        let marker = loop {
            match (data.get(at), data.get(at + 1)) {
                (Some(0xff), Some(0xff)) => at += 1,
                (Some(0xff), Some(&marker)) => break marker,
                (Some(_), Some(_)) => return Err(format!("no marker at byte {at}")),
                _ => return Err("truncated in its header".into()),
            }
        };
        at += 2;
        if matches!(marker, 0x01 | 0xd0..=0xd7) {
            continue;
        }
        let truncated = || format!("truncated in segment FF {marker:02X}");
        let length = data.get(at..at + 2).ok_or_else(truncated)?;
        let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
        let segment = data.get(at + 2..at + length).ok_or_else(truncated)?;
        at += length;
        match marker {
            0xc0..=0xc3 | 0xc5..=0xc7 | 0xc9..=0xcb | 0xcd..=0xcf => {
                if !header.components.is_empty() {
                    return Err("two frame headers".into());
                }
                header.frame(segment)?;
                baseline = marker <= 0xc1;
            }
            0xc4 => header.huffman_tables(segment)?,
            0xdb => header.quantization_tables(segment)?,
            0xdd => {
                let interval = segment.first_chunk().ok_or("short restart interval")?;
                header.restart_interval = usize::from(u16::from_be_bytes(*interval));
            }
            // Adobe: the last byte says what the components are; 0 is RGB.
            0xee if segment.starts_with(b"Adobe") => rgb = segment.get(11) == Some(&0),
            0xda => {
                header.scan_start = at;
                let whole = header.scan(segment)?;
                let rgb = rgb || header.components.iter().map(|c| c.id).eq(*b"RGB");
                header.simple = baseline && whole && !(rgb && header.components.len() == 3);
                return Ok(header);
            }
            0xd9 => return Err("it ends before any picture".into()),
            _ => {}
        }
    }
}

impl Header {
    fn frame(&mut self, segment: &[u8]) -> Result<(), String> {
        let (fixed, components) = segment
            .split_first_chunk::<6>()
            .ok_or("short frame header")?;
        let [precision, h1, h0, w1, w0, n] = *fixed;
        if precision != 8 {
            return Err(format!("{precision} bits a sample; only 8 are supported"));
        }
        self.size = (
            u16::from_be_bytes([w1, w0]).into(),
            u16::from_be_bytes([h1, h0]).into(),
        );
        if self.size.0 == 0 || self.size.1 == 0 {
            return Err(format!("its size is {}x{}", self.size.0, self.size.1));
        }
        match n {
            1 | 3 => {}
            4 => return Err("four components (CMYK); convert it to RGB".into()),
            n => return Err(format!("{n} components")),
        }
        for c in components.as_chunks::<3>().0.iter().take(n.into()) {
            let (h, v) = (c[1] >> 4, c[1] & 15);
            if !(1..=4).contains(&h) || !(1..=4).contains(&v) || c[2] > 3 {
                return Err("invalid sampling factors".into());
            }
            // One component alone is not interleaved: its sampling factors mean nothing.
            let (h, v) = if n == 1 { (1, 1) } else { (h, v) };
            self.components.push(Component {
                id: c[0],
                h,
                v,
                quant: c[2].into(),
                dc: 0,
                ac: 0,
            });
        }
        if self.components.len() != usize::from(n) {
            return Err("short frame header".into());
        }
        Ok(())
    }

    fn quantization_tables(&mut self, mut segment: &[u8]) -> Result<(), String> {
        while let Some((&head, rest)) = segment.split_first() {
            let (wide, id) = (head >> 4, usize::from(head & 15));
            let bytes = if wide == 0 { 64 } else { 128 };
            if wide > 1 || id > 3 || rest.len() < bytes {
                return Err("invalid quantization table".into());
            }
            let value = |k: usize| match wide {
                0 => f32::from(rest[k]),
                _ => f32::from(u16::from_be_bytes([rest[2 * k], rest[2 * k + 1]])),
            };
            self.quant[id] = Some(std::array::from_fn(value));
            segment = &rest[bytes..];
        }
        Ok(())
    }

    fn huffman_tables(&mut self, mut segment: &[u8]) -> Result<(), String> {
        while let Some((&head, rest)) = segment.split_first() {
            let invalid = "invalid Huffman table";
            let (class, id) = (head >> 4, usize::from(head & 15));
            let (counts, rest) = rest.split_first_chunk::<16>().ok_or(invalid)?;
            let total = counts.iter().map(|&c| usize::from(c)).sum();
            let values = rest.get(..total).ok_or(invalid)?;
            let tables = match class {
                0 => &mut self.dc,
                1 => &mut self.ac,
                _ => return Err(invalid.into()),
            };
            *tables.get_mut(id).ok_or(invalid)? =
                Some(Box::new(Huffman::new(counts, values).ok_or(invalid)?));
            segment = &rest[total..];
        }
        Ok(())
    }

    /// Whether the scan holds all components at once.
    fn scan(&mut self, segment: &[u8]) -> Result<bool, String> {
        let invalid = "invalid scan header";
        let (&n, rest) = segment.split_first().ok_or(invalid)?;
        if self.components.is_empty() {
            return Err("a scan before the frame header".into());
        }
        for selector in rest.as_chunks::<2>().0.iter().take(n.into()) {
            let component = self
                .components
                .iter_mut()
                .find(|c| c.id == selector[0])
                .ok_or(invalid)?;
            (component.dc, component.ac) = ((selector[1] >> 4).into(), (selector[1] & 15).into());
            if component.dc > 3 || component.ac > 3 {
                return Err(invalid.into());
            }
        }
        // UVC cameras leave the tables out: then they are the standard's.
        for (id, chroma) in [(0, false), (1, true)] {
            self.dc[id].get_or_insert_with(|| Box::new(huffman::standard_dc(chroma)));
            self.ac[id].get_or_insert_with(|| Box::new(huffman::standard_ac(chroma)));
        }
        Ok(usize::from(n) == self.components.len())
    }
}
