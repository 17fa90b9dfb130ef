//! JPEG frames: a decoder of baseline pictures that knows which part is wanted and how large; zune-jpeg for the rest.

mod header;
mod huffman;
mod idct;
mod scan;

use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use super::plan::{Kind, Plan};
use super::{MAX_PIXELS, mask};
use crate::frame::{Mask, PixelFormat};
pub(super) use header::{Header, parse};
use idct::Basis;
use scan::{Plane, Wanted};

/// Owns the decoded picture, from frame to frame.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    planes: [Plane; 3],
    basis: Option<Basis>,
}

impl Header {
    /// How the decoder will hand the picture over.
    pub fn kind(&self) -> Kind {
        if self.simple {
            let mut sampling = [(1, 1); 3];
            for (s, c) in sampling.iter_mut().zip(&self.components) {
                *s = (c.h, c.v);
            }
            Kind::Jpeg {
                components: self.components.len(),
                sampling,
            }
        } else if self.components.len() == 1 {
            Kind::Raw(PixelFormat::Grey)
        } else {
            Kind::Raw(PixelFormat::Rgb24)
        }
    }
}

impl Decoder {
    /// What `plan` reads of the picture; then [`planes`](Self::planes) has it.
    pub fn decode(&mut self, header: &Header, data: &[u8], plan: &Plan) -> Result<(), String> {
        if !header.simple {
            return self.decode_whole(header, data);
        }
        let basis = match &mut self.basis {
            Some(basis) if basis.size() == plan.jpeg_scale => basis,
            basis => basis.insert(Basis::new(plan.jpeg_scale)),
        };
        let mut wanted: [Wanted; 3] = Default::default();
        for pass in &plan.passes {
            let (rows, columns) = pass.needs();
            wanted[pass.plane] = Wanted { columns, rows };
        }
        scan::decode(header, data, basis, &wanted, &mut self.planes)
    }

    /// Progressive and other rare kinds.
    fn decode_whole(&mut self, header: &Header, data: &[u8]) -> Result<(), String> {
        let grey = header.components.len() == 1;
        let options = DecoderOptions::default()
            .set_strict_mode(true)
            .set_max_width(MAX_PIXELS as usize)
            .set_max_height(MAX_PIXELS as usize)
            .jpeg_set_out_colorspace(if grey {
                ColorSpace::Luma
            } else {
                ColorSpace::RGB
            });
        let mut decoder = JpegDecoder::new_with_options(ZCursor::new(data), options);
        decoder.decode_headers().map_err(|e| e.to_string())?;
        let stride = header.size.0 as usize * if grey { 1 } else { 3 };
        let expected = stride * header.size.1 as usize;
        if decoder.output_buffer_size() != Some(expected) {
            return Err("its headers contradict each other".into());
        }
        let plane = &mut self.planes[0];
        plane.stride = stride;
        plane.data.resize(expected, 0);
        decoder
            .decode_into(&mut plane.data)
            .map_err(|e| e.to_string())
    }

    /// Makes what a privacy mask covers black in the planes of the picture that [`decode`](Self::decode) made.
    pub fn blacken(&mut self, header: &Header, plan: &Plan, mask: &Mask) {
        if header.simple {
            let planes = self.planes.each_mut().map(|p| (&mut p.data[..], p.stride));
            return mask::blacken(planes, plan.source, plan.jpeg_scale, mask);
        }
        let most = |f: fn(&header::Component) -> u8| {
            usize::from(header.components.iter().map(f).max().unwrap_or(1))
        };
        let most = (most(|c| c.h), most(|c| c.v));
        let channels = if header.components.len() == 1 { 1 } else { 3 };
        mask::blacken_whole(&mut self.planes[0].data, channels, header.size, most, mask);
    }

    /// Bytes and stride of each plane.
    pub fn planes(&self) -> [(&[u8], usize); 3] {
        self.planes.each_ref().map(|p| (&p.data[..], p.stride))
    }
}
