//! A baseline JPEG's scan → planes of samples, at full or reduced scale, only where they are wanted.
//!
//! Camera JPEGs are baseline, and most of their pixels are cropped away or averaged: blocks outside the wanted
//! part are only skipped over, and blocks inside are transformed straight to the reduced size.

use std::ops::Range;

use super::header::{Component, Header};
use super::huffman::{Bits, Huffman};
use super::idct::{Basis, Coefficients};

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
    /// As the basis arranges it.
    quant: Coefficients<f32>,
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
                .map(|quant| basis.arranged(quant))
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

    let mcus = Mcus {
        across,
        down,
        restart_interval: header.restart_interval,
    };
    let scan = &data[header.scan_start..];
    match n {
        8 => mcus.decode::<8>(scan, basis, &mut channels, planes),
        4 => mcus.decode::<4>(scan, basis, &mut channels, planes),
        2 => mcus.decode::<2>(scan, basis, &mut channels, planes),
        _ => mcus.decode::<1>(scan, basis, &mut channels, planes),
    }
}

/// What is read of the scan.
struct Mcus {
    across: usize,
    down: usize,
    restart_interval: usize,
}

impl Mcus {
    /// `N` is the basis's size: what is done with a block is compiled for it.
    fn decode<const N: usize>(
        &self,
        scan: &[u8],
        basis: &Basis,
        channels: &mut [Channel<'_>],
        planes: &mut [Plane; 3],
    ) -> Result<(), String> {
        let mut bits = Bits::new(scan);
        let mut coefficients = [0; 64];
        let mut until_restart = self.restart_interval;
        for mcu_y in 0..self.down {
            for mcu_x in 0..self.across {
                if self.restart_interval > 0 {
                    if until_restart == 0 {
                        bits.restart().ok_or("a restart marker is missing")?;
                        until_restart = self.restart_interval;
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
                            let done = if wanted {
                                let out = &mut plane.data[y * N * plane.stride + x * N..];
                                block::<N>(
                                    &mut bits,
                                    channel,
                                    basis,
                                    &mut coefficients,
                                    out,
                                    plane.stride,
                                )
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
}

/// Whether an end marker is there; cameras may pad behind it.
fn ends(scan: &[u8]) -> bool {
    scan.windows(2).rev().any(|w| w == [0xff, 0xd9])
}

fn skip(bits: &mut Bits<'_>, channel: &mut Channel<'_>) -> Option<()> {
    let mut at = *bits;
    channel.next_dc(&mut at)?;
    at.next_ac(channel.ac, |_, _| ())?;
    *bits = at;
    Some(())
}

impl Channel<'_> {
    #[inline(always)]
    fn next_dc(&mut self, bits: &mut Bits<'_>) -> Option<i32> {
        self.prediction = self.prediction.wrapping_add(bits.next_dc(self.dc)?);
        Some(self.prediction)
    }
}

/// A block as `N` × `N` samples at the start of `out`.
#[inline(never)]
fn block<const N: usize>(
    bits: &mut Bits<'_>,
    channel: &mut Channel<'_>,
    basis: &Basis,
    coefficients: &mut Coefficients<i32>,
    out: &mut [u8],
    stride: usize,
) -> Option<()> {
    let mut at = *bits;
    coefficients[..N * N].fill(0);
    coefficients[0] = channel.next_dc(&mut at)?;
    // The zigzag index of the last coefficient.
    let mut last = 0;
    at.next_ac(channel.ac, |index, value| {
        if N > 1 {
            last = index;
            coefficients[basis.place(index)] = value;
        }
    })?;
    *bits = at;
    let samples = basis.transform::<N>(coefficients, &channel.quant, last);
    for (y, samples) in samples.into_iter().enumerate() {
        if let Some(out) = out.get_mut(y * stride..).and_then(<[u8]>::first_chunk_mut) {
            *out = samples;
        }
    }
    Some(())
}
