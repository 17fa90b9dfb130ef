//! Image files as frames, for `classify` and the `files` source.

use std::io::Cursor;

use super::{MAX_PIXELS, PreprocessError, jpeg};
use crate::frame::{Frame, FrameMeta, FramePool, Geometry, PixelFormat};

/// A JPEG stays as it is (an MJPEG frame); PNG, BMP and WebP become RGB24, transparency dropped.
///
/// EXIF orientation is not applied.
pub fn frame_from_image_bytes(
    bytes: &[u8],
    meta: FrameMeta,
    pool: &FramePool,
) -> Result<Frame, PreprocessError> {
    let mut data = pool.take();
    let bad = |problem: String| PreprocessError::Image(problem);
    if bytes.starts_with(&[0xff, 0xd8]) {
        let header = jpeg::parse(bytes).map_err(bad)?;
        data.extend_from_slice(bytes);
        return Ok(Frame {
            format: PixelFormat::Mjpeg,
            geometry: Geometry::packed(header.size.0, header.size.1, PixelFormat::Mjpeg),
            data,
            meta,
            mask: None,
        });
    }
    let mut limits = image::Limits::default();
    // 16-bit RGBA.
    limits.max_alloc = Some(MAX_PIXELS * 8);
    let mut reader = image::ImageReader::new(Cursor::new(bytes))
        .with_guessed_format()
        .map_err(|e| bad(e.to_string()))?;
    reader.limits(limits);
    let picture = reader.decode().map_err(|e| bad(e.to_string()))?.into_rgb8();
    let (width, height) = picture.dimensions();
    if width == 0 || height == 0 || u64::from(width) * u64::from(height) > MAX_PIXELS {
        return Err(bad(format!(
            "{width}x{height}: not between 1 pixel and 64 megapixels"
        )));
    }
    data.extend_from_slice(picture.as_raw());
    Ok(Frame {
        format: PixelFormat::Rgb24,
        geometry: Geometry::packed(width, height, PixelFormat::Rgb24),
        data,
        meta,
        mask: None,
    })
}

/// Width and height of a frame: an MJPEG frame's are those of its own header.
///
/// # Errors
/// No JPEG header.
pub fn frame_size(frame: &Frame) -> Result<(u32, u32), PreprocessError> {
    if frame.format != PixelFormat::Mjpeg {
        return Ok((frame.geometry.width, frame.geometry.height));
    }
    let header = jpeg::parse(&frame.data).map_err(PreprocessError::Image)?;
    Ok(header.size)
}

/// Width and height as an image file's header declares them; nothing is decoded.
///
/// # Errors
/// No JPEG, PNG, BMP or WebP header.
pub fn image_size(bytes: &[u8]) -> Result<(u32, u32), PreprocessError> {
    if bytes.starts_with(&[0xff, 0xd8]) {
        let header = jpeg::parse(bytes).map_err(PreprocessError::Image)?;
        return Ok(header.size);
    }
    image::ImageReader::new(Cursor::new(bytes))
        .with_guessed_format()
        .map_err(|e| PreprocessError::Image(e.to_string()))?
        .into_dimensions()
        .map_err(|e| PreprocessError::Image(e.to_string()))
}
