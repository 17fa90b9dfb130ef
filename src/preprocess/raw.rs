//! Raw frames: where their planes begin, and whether all bytes are there.

use super::{MAX_PIXELS, PreprocessError};
use crate::frame::{Frame, PixelFormat};

/// Each plane and its stride; all rows are within the bytes.
pub(super) fn planes(frame: &Frame) -> Result<[(&[u8], usize); 3], PreprocessError> {
    let mut rest = &frame.data[..];
    Ok(layout(frame)?.map(|(bytes, stride)| {
        let (plane, behind) = rest.split_at(bytes);
        rest = behind;
        (plane, stride)
    }))
}

/// Bytes and stride of each plane; they follow each other, and the frame has them all.
pub(super) fn layout(frame: &Frame) -> Result<[(usize, usize); 3], PreprocessError> {
    let g = frame.geometry;
    let format = frame.format;
    let wrong = |problem: String| PreprocessError::Geometry {
        format,
        width: g.width,
        height: g.height,
        stride_bytes: g.stride_bytes,
        problem,
    };
    if g.width == 0 || g.height == 0 {
        return Err(wrong("it has no pixels".into()));
    }
    if u64::from(g.width) * u64::from(g.height) > MAX_PIXELS {
        return Err(wrong("more than 64 megapixels".into()));
    }
    let packed = format.packed_stride(g.width);
    if g.stride_bytes < packed {
        return Err(wrong(format!("a row has {packed} bytes")));
    }
    let (height, stride) = (u64::from(g.height), u64::from(g.stride_bytes));
    let half = height.div_ceil(2);
    // Bytes of each plane, and strides.
    let (lengths, strides) = match format {
        PixelFormat::Nv12 => {
            let chroma = stride.next_multiple_of(2);
            ([height * stride, half * chroma, 0], [stride, chroma, 0])
        }
        PixelFormat::Yu12 => {
            let chroma = stride.div_ceil(2);
            (
                [height * stride, half * chroma, half * chroma],
                [stride, chroma, chroma],
            )
        }
        _ => ([height * stride, 0, 0], [stride, 0, 0]),
    };
    let needed: u64 = lengths.iter().sum();
    if (frame.data.len() as u64) < needed {
        return Err(wrong(format!(
            "{needed} bytes are needed, {} are there",
            frame.data.len()
        )));
    }
    Ok(std::array::from_fn(|i| {
        (lengths[i] as usize, strides[i] as usize)
    }))
}
