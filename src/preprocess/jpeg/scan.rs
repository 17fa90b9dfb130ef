//! A baseline JPEG's scan → planes of samples, at full or reduced scale, only where they are wanted.
//!
//! Camera JPEGs are baseline, and most of their pixels are cropped away or averaged: blocks outside the wanted
//! part are only skipped over, and blocks inside are transformed straight to the reduced size.

use std::ops::Range;

use super::header::{Component, Header};
use super::huffman::{Bits, Huffman};
use super::idct::{self, Basis, ZIGZAG};

/// One component's samples. Outside the wanted part they are undefined.
#[derive(Debug, Default)]
pub(in super::super) struct Plane {
    pub data: Vec<u8>,
    pub stride: usize,
}

/// Columns and rows of a plane that are wanted, in samples of the reduced scale.
#[derive(Debug, Clone, Default)]
pub(in super::super) struct Wanted {
    pub columns: Range<usize>,
    pub rows: Range<usize>,
}

struct Channel<'a> {
    component: Component,
    quant: &'a [f32; 64],
    dc: &'a Huffman,
    ac: &'a Huffman,
    /// Wanted blocks.
    columns: Range<usize>,
    rows: Range<usize>,
    prediction: i32,
}

/// Decodes with `basis.size()` samples for 8. `wanted` is for each component; empty ranges: not at all.
pub(in super::super) fn decode(
    header: &Header,
    data: &[u8],
    basis: &Basis,
    wanted: &[Wanted; 3],
    planes: &mut [Plane; 3],
) -> Result<(), String> {
    let n = basis.size();
    let most =
        |f: fn(&Component) -> u8| usize::from(header.components.iter().map(f).max().unwrap_or(1));
    let across = (header.size.0 as usize).div_ceil(8 * most(|c| c.h));
    let down = (header.size.1 as usize).div_ceil(8 * most(|c| c.v));
    let blocks_an_mcu: usize = header
        .components
        .iter()
        .map(|c| usize::from(c.h * c.v))
        .sum();
    // A block has at least two codes of one bit. This also bounds what a few bytes can make us allocate.
    if across * down * blocks_an_mcu / 4 > data.len() - header.scan_start {
        return Err("truncated".into());
    }
    let mut channels = Vec::with_capacity(3);
    for ((&component, plane), wanted) in header.components.iter().zip(&mut *planes).zip(wanted) {
        let (h, v) = (usize::from(component.h), usize::from(component.v));
        plane.stride = across * h * n;
        plane.data.resize(plane.stride * down * v * n, 0);
        let blocks = |r: &Range<usize>| {
            if r.is_empty() {
                0..0
            } else {
                r.start / n..r.end.div_ceil(n)
            }
        };
        channels.push(Channel {
            component,
            quant: header.quant[component.quant]
                .as_ref()
                .ok_or("a quantization table is missing")?,
            dc: header.dc[component.dc]
                .as_deref()
                .ok_or("a Huffman table is missing")?,
            ac: header.ac[component.ac]
                .as_deref()
                .ok_or("a Huffman table is missing")?,
            columns: blocks(&wanted.columns),
            rows: blocks(&wanted.rows),
            prediction: 0,
        });
    }
    // Rows below the wanted ones are not even skipped, if the picture is whole.
    let last = channels
        .iter()
        .map(|c| c.rows.end.div_ceil(c.component.v.into()))
        .max()
        .unwrap_or(down);
    let down = if ends(&data[header.scan_start..]) {
        last.min(down)
    } else {
        down
    };

    let mut bits = Bits::new(&data[header.scan_start..]);
    let mut until_restart = header.restart_interval;
    for mcu_y in 0..down {
        for mcu_x in 0..across {
            if header.restart_interval > 0 {
                if until_restart == 0 {
                    bits.restart().ok_or("a restart marker is missing")?;
                    until_restart = header.restart_interval;
                    channels.iter_mut().for_each(|c| c.prediction = 0);
                }
                until_restart -= 1;
            }
            for (channel, plane) in channels.iter_mut().zip(&mut *planes) {
                let (h, v) = (
                    usize::from(channel.component.h),
                    usize::from(channel.component.v),
                );
                for y in mcu_y * v..(mcu_y + 1) * v {
                    for x in mcu_x * h..(mcu_x + 1) * h {
                        let wanted = channel.columns.contains(&x) && channel.rows.contains(&y);
                        let at = y * n * plane.stride + x * n;
                        let done = if wanted && n == 1 {
                            mean(&mut bits, channel).map(|mean| plane.data[at] = mean)
                        } else if wanted {
                            let out = &mut plane.data[at..];
                            block(&mut bits, channel, basis, out, plane.stride)
                        } else {
                            skip(&mut bits, channel)
                        };
                        done.ok_or_else(|| format!("invalid code in block {x},{y}"))?;
                    }
                }
            }
        }
        if bits.overrun() {
            return Err("truncated".into());
        }
    }
    Ok(())
}

/// Whether an end marker is there; cameras may pad behind it.
fn ends(scan: &[u8]) -> bool {
    scan.windows(2).rev().any(|w| w == [0xff, 0xd9])
}

#[inline(always)]
fn skip(bits: &mut Bits<'_>, channel: &mut Channel<'_>) -> Option<()> {
    channel.prediction = channel.prediction.wrapping_add(bits.next_dc(channel.dc)?);
    let mut k = 1;
    while k < 64 {
        k += bits.next(channel.ac)?.0;
    }
    Some(())
}

/// A block as one sample.
#[inline(always)]
fn mean(bits: &mut Bits<'_>, channel: &mut Channel<'_>) -> Option<u8> {
    skip(bits, channel)?;
    Some(idct::mean(channel.prediction as f32 * channel.quant[0]))
}

#[inline(always)]
fn block(
    bits: &mut Bits<'_>,
    channel: &mut Channel<'_>,
    basis: &Basis,
    out: &mut [u8],
    stride: usize,
) -> Option<()> {
    channel.prediction = channel.prediction.wrapping_add(bits.next_dc(channel.dc)?);
    let mut coefficients = [0f32; 64];
    coefficients[0] = channel.prediction as f32 * channel.quant[0];
    let mut k = 1;
    // The zigzag index of the last coefficient.
    let mut last = 0;
    while k < 64 {
        let (advance, value) = bits.next(channel.ac)?;
        k += advance;
        if k <= 64 {
            last = k - 1;
            coefficients[ZIGZAG[last] & 63] = value as f32 * channel.quant[last];
        }
    }
    basis.transform(&coefficients, last, out, stride);
    Some(())
}
