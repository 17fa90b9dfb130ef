//! Colours of a row: what a camera's samples mean, turned into the model's channels.

use super::ColourOrder;
use super::plan::Kind;
use crate::frame::PixelFormat;

/// From the source's channels to the model's (R G B, or luma).
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Colour {
    /// R G B stays.
    Rgb,
    /// R G B → luma.
    RgbToGrey,
    /// Luma → R G B.
    GreyToRgb,
    /// Luma stays.
    Grey,
    /// BT.601 Y Cb Cr → R G B: JPEG's full range.
    FullToRgb,
    /// BT.601 Y Cb Cr → R G B: video's range, 16 to 235 and 16 to 240.
    LimitedToRgb,
    /// Luma from video's range to the full one.
    LimitedToGrey,
}

pub(super) fn of(kind: Kind, wanted: ColourOrder) -> Colour {
    let grey = wanted == ColourOrder::Grey;
    match kind {
        Kind::Raw(PixelFormat::Rgb24 | PixelFormat::Bgr24 | PixelFormat::Mjpeg) if grey => {
            Colour::RgbToGrey
        }
        Kind::Raw(PixelFormat::Rgb24 | PixelFormat::Bgr24 | PixelFormat::Mjpeg) => Colour::Rgb,
        Kind::Raw(PixelFormat::Grey) | Kind::Jpeg { components: 1, .. } if !grey => {
            Colour::GreyToRgb
        }
        Kind::Raw(PixelFormat::Grey) => Colour::Grey,
        Kind::Jpeg { .. } if grey => Colour::Grey,
        Kind::Jpeg { .. } => Colour::FullToRgb,
        Kind::Raw(_) if grey => Colour::LimitedToGrey,
        Kind::Raw(_) => Colour::LimitedToRgb,
    }
}

/// Which of R G B, or luma, each of the model's channels is.
pub(super) fn order(wanted: ColourOrder) -> &'static [usize] {
    match wanted {
        ColourOrder::Rgb => &[0, 1, 2],
        ColourOrder::Bgr => &[2, 1, 0],
        ColourOrder::Grey => &[0],
    }
}

/// The value of a channel where the picture is black.
pub(super) fn black(kind: Kind, channel: usize) -> u8 {
    match kind {
        Kind::Raw(
            PixelFormat::Rgb24 | PixelFormat::Bgr24 | PixelFormat::Grey | PixelFormat::Mjpeg,
        ) => 0,
        _ if channel > 0 => 128,
        Kind::Raw(_) => 16,
        Kind::Jpeg { .. } => 0,
    }
}

impl Colour {
    /// How many of the source's channels are needed.
    pub fn source_channels(self) -> usize {
        match self {
            Self::Grey | Self::GreyToRgb | Self::LimitedToGrey => 1,
            _ => 3,
        }
    }

    pub fn convert(self, [a, b, c]: &mut [Vec<u8>; 3]) {
        match self {
            Self::Rgb | Self::Grey => {}
            Self::GreyToRgb => {
                b.copy_from_slice(a);
                c.copy_from_slice(a);
            }
            // Pillow's weights.
            Self::RgbToGrey => {
                for ((a, &b), &c) in a.iter_mut().zip(&*b).zip(&*c) {
                    let luma =
                        i32::from(*a) * 19_595 + i32::from(b) * 38_470 + i32::from(c) * 7_471;
                    *a = ((luma + 0x8000) >> 16) as u8;
                }
            }
            Self::FullToRgb => ycc_to_rgb::<0, 65_536, 91_881, 22_554, 46_802, 116_130>(a, b, c),
            // 255/219 for luma, 255/224 for chroma.
            Self::LimitedToRgb => {
                ycc_to_rgb::<16, 76_309, 104_597, 25_675, 53_279, 132_201>(a, b, c)
            }
            Self::LimitedToGrey => {
                for a in a {
                    *a = byte((i32::from(*a) - 16) * 76_309);
                }
            }
        }
    }
}

/// BT.601 with factors in 16.16 fixed point.
fn ycc_to_rgb<
    const BLACK: i32,
    const LUMA: i32,
    const CR_R: i32,
    const CB_G: i32,
    const CR_G: i32,
    const CB_B: i32,
>(
    y: &mut [u8],
    cb: &mut [u8],
    cr: &mut [u8],
) {
    for ((a, b), c) in y.iter_mut().zip(cb).zip(cr) {
        let y = (i32::from(*a) - BLACK) * LUMA;
        let (cb, cr) = (i32::from(*b) - 128, i32::from(*c) - 128);
        *a = byte(y + CR_R * cr);
        *b = byte(y - CB_G * cb - CR_G * cr);
        *c = byte(y + CB_B * cb);
    }
}

fn byte(fixed: i32) -> u8 {
    ((fixed + 0x8000) >> 16).clamp(0, 255) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn convert(colour: Colour, pixel: [u8; 3]) -> [u8; 3] {
        let mut channels = pixel.map(|v| vec![v]);
        colour.convert(&mut channels);
        channels.map(|v| v[0])
    }

    #[test]
    fn known_colours() {
        let near =
            |got: [u8; 3], want: [u8; 3]| got.iter().zip(want).all(|(g, w)| g.abs_diff(w) <= 1);
        assert_eq!(convert(Colour::LimitedToRgb, [16, 128, 128]), [0; 3]);
        assert_eq!(convert(Colour::LimitedToRgb, [235, 128, 128]), [255; 3]);
        assert_eq!(convert(Colour::FullToRgb, [77, 128, 128]), [77; 3]);
        // Pure red, green and blue of BT.601.
        assert!(near(
            convert(Colour::LimitedToRgb, [81, 90, 240]),
            [254, 0, 0]
        ));
        assert!(near(convert(Colour::FullToRgb, [76, 85, 255]), [254, 0, 0]));
        assert!(near(convert(Colour::FullToRgb, [150, 44, 21]), [0, 255, 1]));
        assert!(near(
            convert(Colour::FullToRgb, [29, 255, 107]),
            [0, 0, 254]
        ));
        assert_eq!(convert(Colour::RgbToGrey, [255, 255, 255])[0], 255);
        assert_eq!(convert(Colour::LimitedToGrey, [235, 0, 0])[0], 255);
        assert_eq!(convert(Colour::GreyToRgb, [9, 0, 0]), [9; 3]);
    }
}
