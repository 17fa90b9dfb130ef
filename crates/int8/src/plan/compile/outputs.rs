//! What the network reads of a region: how each of its outputs is made of a buffer.

use ocellus_int8_kernels::Sign;

use super::{Buffer, Compiler, Layout, Stored, logical_strides, relayout};
use crate::Error;
use crate::graph::{Sink, SinkKind};
use crate::plan::run::MAX_RANKED;
use crate::plan::{OutputKind, sink_shape};

impl Compiler<'_> {
    pub(super) fn output(&self, sink: &Sink) -> Result<(Buffer, Vec<usize>, OutputKind), Error> {
        let Sink { name, tensor, kind } = sink;
        let tensor = *tensor;
        let shape = &self.shapes[tensor];
        let stored = self.stored[tensor].unwrap_or(Stored {
            buffer: Buffer::Step(0),
            layout: Layout::Plain,
        });
        let flip = self.flip();
        let copy = relayout(shape, stored.layout, Layout::Plain);
        let kind = match kind {
            SinkKind::Float(Some(table)) => {
                let table = std::array::from_fn(|b| table[b ^ usize::from(flip)]);
                OutputKind::Table {
                    table: std::sync::Arc::new(table),
                    copy,
                }
            }
            SinkKind::Float(None) => {
                let step = match stored.buffer {
                    Buffer::Step(step) => step,
                    Buffer::Input(_) => 0,
                };
                OutputKind::Floats { step, copy }
            }
            SinkKind::Bytes { signed } => {
                let flip = if *signed == (self.sign == Sign::S8) {
                    0
                } else {
                    0x80
                };
                OutputKind::Bytes {
                    flip,
                    signed: *signed,
                    copy,
                }
            }
            &SinkKind::Largest { last, .. } => {
                let [_, channels, h, w] = <[usize; 4]>::try_from(&shape[..]).unwrap_or([1; 4]);
                if channels > MAX_RANKED {
                    return Err(Error::Malformed {
                        node: format!("`{name}`"),
                        problem: format!(
                            "it chooses among {channels} channels, {MAX_RANKED} at most"
                        ),
                    });
                }
                let strides = logical_strides(shape, stored.layout);
                let at = |axis: usize| strides.get(axis).copied().unwrap_or(1);
                let largest = OutputKind::Largest {
                    flip,
                    last,
                    channels,
                    pixels: h * w,
                    strides: [at(1), at(3)],
                };
                return Ok((stored.buffer, sink_shape(kind, shape), largest));
            }
            SinkKind::Region => {
                let layout = if shape.len() == 4 {
                    Layout::ChannelsLast
                } else {
                    Layout::Plain
                };
                let copy = relayout(shape, stored.layout, layout);
                let shape = sink_shape(&SinkKind::Region, shape);
                let kind = OutputKind::Bytes {
                    flip: 0,
                    signed: false,
                    copy,
                };
                return Ok((stored.buffer, shape, kind));
            }
        };
        Ok((stored.buffer, shape.clone(), kind))
    }
}
