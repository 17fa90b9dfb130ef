//! A frame → a JPEG, on a thread of its own: neither inference nor the network waits for it.
//!
//! In: a copy of a frame in any pixel format. Out: a baseline JPEG with nothing in it but the picture (a camera's own JPEG may hold
//! metadata, or lack its Huffman tables). Always holds: one at a time.

use image::ExtendedColorType::Rgb8;
use image::codecs::jpeg::JpegEncoder;

use crate::frame::Frame;
use crate::preprocess::{InputData, InputSpec, InputTensor, Preprocessor, frame_size};

/// A picture as it is published.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Jpeg {
    pub bytes: Vec<u8>,
    pub width: u32,
    pub height: u32,
}

/// Scales the longer side down to `max_side_px` and encodes.
pub(super) fn encode(frame: &Frame, quality: u8, max_side_px: u32) -> Result<Jpeg, String> {
    let told = |e: &dyn std::fmt::Display| format!("the frame cannot be read: {e}");
    let (width, height) = frame_size(frame).map_err(|e| told(&e))?;
    let (width, height) = scaled(width, height, max_side_px);
    let spec = InputSpec::rgb(width, height);
    let mut pixels = InputTensor::for_spec(&spec);
    Preprocessor::new(spec)
        .run(frame, &mut pixels)
        .map_err(|e| told(&e))?;
    let InputData::U8(rgb) = &pixels.data else {
        return Err("no pixels".into());
    };
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, quality)
        .encode(rgb, width, height, Rgb8)
        .map_err(|e| format!("the picture cannot be encoded: {e}"))?;
    Ok(Jpeg {
        bytes,
        width,
        height,
    })
}

fn scaled(width: u32, height: u32, max_side_px: u32) -> (u32, u32) {
    let longest = width.max(height);
    if longest <= max_side_px {
        return (width, height);
    }
    let scale = |side: u32| {
        let side = u64::from(side) * u64::from(max_side_px) / u64::from(longest);
        u32::try_from(side).unwrap_or(max_side_px).max(1)
    };
    (scale(width), scale(height))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{FrameMeta, FramePool, Geometry, PixelFormat};
    use crate::preprocess::frame_from_image_bytes;

    fn frame(width: u32, height: u32, format: PixelFormat, bytes: &[u8]) -> Frame {
        let mut data = FramePool::new(0).take();
        data.extend_from_slice(bytes);
        Frame {
            format,
            geometry: Geometry::packed(width, height, format),
            data,
            meta: FrameMeta::of_still("porch"),
            mask: None,
        }
    }

    #[test]
    fn a_picture_keeps_its_colours_and_its_shape() {
        // Left half red, right half blue.
        let row: Vec<u8> = (0..64)
            .flat_map(|x| if x < 32 { [220, 20, 20] } else { [20, 20, 220] })
            .collect();
        let rgb = frame(64, 32, PixelFormat::Rgb24, &row.repeat(32));
        let jpeg = encode(&rgb, 90, 32).unwrap();
        assert_eq!((jpeg.width, jpeg.height), (32, 16));
        let picture = image::load_from_memory(&jpeg.bytes).unwrap().into_rgb8();
        assert_eq!(picture.dimensions(), (32, 16));
        let near =
            |p: &image::Rgb<u8>, c: [u8; 3]| p.0.iter().zip(c).all(|(a, b)| a.abs_diff(b) < 25);
        assert!(
            near(picture.get_pixel(4, 8), [220, 20, 20]),
            "{:?}",
            picture.get_pixel(4, 8)
        );
        assert!(near(picture.get_pixel(28, 8), [20, 20, 220]));
        // A camera's JPEG is encoded again.
        let again =
            frame_from_image_bytes(&jpeg.bytes, FrameMeta::of_still("x"), &FramePool::new(0))
                .unwrap();
        let small = encode(&again, 10, 4096).unwrap();
        assert_eq!((small.width, small.height), (32, 16));
        assert!(small.bytes.len() < jpeg.bytes.len());
    }

    #[test]
    fn bad_frames_are_told() {
        let broken = frame(64, 32, PixelFormat::Mjpeg, b"\xff\xd8 no");
        assert!(
            encode(&broken, 80, 640)
                .unwrap_err()
                .contains("cannot be read")
        );
        let short = frame(64, 32, PixelFormat::Rgb24, &[0; 10]);
        assert!(encode(&short, 80, 640).is_err());
        assert_eq!(scaled(4000, 3, 400), (400, 1));
        assert_eq!(scaled(640, 480, 1280), (640, 480));
    }
}
