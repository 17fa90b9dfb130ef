//! RGB24 → the other raw formats. YUV is BT.601 with limited range, as webcams send it.

use crate::frame::PixelFormat;

/// Writes `rgb` (packed, `width × height`) to `out` in `format`, replacing what was there. MJPEG gives nothing.
pub(super) fn from_rgb24(
    rgb: &[u8],
    width: usize,
    height: usize,
    format: PixelFormat,
    out: &mut Vec<u8>,
) {
    out.clear();
    let pixel = |x: usize, y: usize| {
        // Odd sizes: the last column and row stand for those that are missing.
        let i = (y.min(height - 1) * width + x.min(width - 1)) * 3;
        [rgb[i], rgb[i + 1], rgb[i + 2]].map(i32::from)
    };
    let chroma_of = |x: usize, y: usize, rows: usize| {
        let mut sum = [0; 3];
        for (dx, dy) in [(0, 0), (1, 0), (0, 1), (1, 1)] {
            let p = pixel(x + dx, y + dy.min(rows - 1));
            (0..3).for_each(|c| sum[c] += p[c]);
        }
        let mean = sum.map(|s| (s + 2) >> 2);
        (blue(mean), red(mean))
    };
    match format {
        PixelFormat::Mjpeg => {}
        PixelFormat::Rgb24 => out.extend_from_slice(rgb),
        PixelFormat::Bgr24 => out.extend(rgb.chunks_exact(3).flat_map(|p| [p[2], p[1], p[0]])),
        PixelFormat::Grey => out.extend(rgb.chunks_exact(3).map(|p| {
            // Full range: a grey camera's white is 255.
            let [r, g, b] = [p[0], p[1], p[2]].map(u32::from);
            ((77 * r + 150 * g + 29 * b + 128) >> 8) as u8
        })),
        PixelFormat::Yuyv | PixelFormat::Uyvy => {
            for y in 0..height {
                for x in (0..width).step_by(2) {
                    let (y0, y1) = (luma(pixel(x, y)), luma(pixel(x + 1, y)));
                    let (u, v) = chroma_of(x, y, 1);
                    out.extend(match format {
                        PixelFormat::Yuyv => [y0, u, y1, v],
                        _ => [u, y0, v, y1],
                    });
                }
            }
        }
        PixelFormat::Nv12 | PixelFormat::Yu12 => {
            for y in 0..height {
                out.extend((0..width).map(|x| luma(pixel(x, y))));
            }
            let blocks = || {
                (0..height)
                    .step_by(2)
                    .flat_map(|y| (0..width).step_by(2).map(move |x| (x, y)))
            };
            if format == PixelFormat::Nv12 {
                out.extend(blocks().flat_map(|(x, y)| {
                    let (u, v) = chroma_of(x, y, 2);
                    [u, v]
                }));
            } else {
                out.extend(blocks().map(|(x, y)| chroma_of(x, y, 2).0));
                out.extend(blocks().map(|(x, y)| chroma_of(x, y, 2).1));
            }
        }
    }
}

fn luma([r, g, b]: [i32; 3]) -> u8 {
    (((66 * r + 129 * g + 25 * b + 128) >> 8) + 16) as u8
}

fn blue([r, g, b]: [i32; 3]) -> u8 {
    (((-38 * r - 74 * g + 112 * b + 128) >> 8) + 128) as u8
}

fn red([r, g, b]: [i32; 3]) -> u8 {
    (((112 * r - 94 * g - 18 * b + 128) >> 8) + 128) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    const RAW: [PixelFormat; 7] = [
        PixelFormat::Yuyv,
        PixelFormat::Uyvy,
        PixelFormat::Nv12,
        PixelFormat::Yu12,
        PixelFormat::Rgb24,
        PixelFormat::Bgr24,
        PixelFormat::Grey,
    ];

    #[test]
    fn every_format_has_the_size_that_its_geometry_says() {
        for (w, h) in [(16, 16), (17, 19), (640, 480)] {
            let rgb = vec![90; w * h * 3];
            for f in RAW {
                let mut out = vec![1, 2, 3];
                from_rgb24(&rgb, w, h, f, &mut out);
                let stride = f.packed_stride(w as u32);
                assert_eq!(
                    Some(out.len()),
                    f.frame_bytes(h as u32, stride),
                    "{f} {w}x{h}"
                );
            }
        }
    }

    #[test]
    fn colours_are_bt601() {
        let convert = |p: [u8; 3], f| {
            let mut out = Vec::new();
            from_rgb24(&p.repeat(4), 2, 2, f, &mut out);
            out
        };
        assert_eq!(
            convert([255; 3], PixelFormat::Yuyv)[..4],
            [235, 128, 235, 128]
        );
        assert_eq!(convert([0; 3], PixelFormat::Uyvy)[..4], [128, 16, 128, 16]);
        assert_eq!(
            convert([255, 0, 0], PixelFormat::Nv12),
            [82, 82, 82, 82, 90, 240]
        );
        assert_eq!(
            convert([0, 0, 255], PixelFormat::Yu12),
            [41, 41, 41, 41, 240, 110]
        );
        assert_eq!(convert([255; 3], PixelFormat::Grey), [255; 4]);
        assert_eq!(convert([1, 2, 3], PixelFormat::Bgr24)[..3], [3, 2, 1]);
    }
}
