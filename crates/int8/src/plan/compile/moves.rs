//! What moves bytes without changing them: copies, or nothing at all where the bytes may stay as they lie.

use ocellus_int8_kernels::{Gather, Shape};

use super::layout::{Layout, in_order, logical_strides, ordered, storage_order};
use super::{Buffer, Compiler, Stored, text};
use crate::copy::{StridedCopy, strides};
use crate::graph::{Move, Node, TensorId};
use crate::plan::Kernel;
use crate::shapes;

impl Compiler<'_> {
    /// What is copied twice is copied once: makes `copy`, of a buffer that is a copy itself, one of that one's input. Not where both together
    /// would move single bytes: two transpositions in tiles are faster than that.
    pub(super) fn read_through(&self, copy: &mut StridedCopy, input: &mut Buffer) {
        let Buffer::Step(step) = *input else {
            return;
        };
        let draft = &self.steps[step];
        if let Kernel::Copy { copies, fill: None } = &draft.kernel
            && let [first] = copies.as_slice()
            && let Some(both) = copy.after(first).filter(StridedCopy::has_runs)
        {
            (*copy, *input) = (both, draft.inputs[0]);
        }
    }

    pub(super) fn concat(
        &mut self,
        tensor: TensorId,
        node: &Node,
        axis: i64,
    ) -> Result<Stored, String> {
        let shape = self.shapes[tensor].clone();
        let axis = shapes::axis(axis, shape.len())?;
        let layout = if shape.len() == 4 {
            Layout::ChannelsLast
        } else {
            Layout::Plain
        };
        let to = logical_strides(&shape, layout);
        let (mut inputs, mut copies, mut offset) = (Vec::new(), Vec::new(), 0);
        for input in &node.inputs {
            let own = self.shapes[*input].clone();
            let stored = self.stored[*input].ok_or("its input was not computed")?;
            let from = logical_strides(&own, stored.layout);
            copies.push(ordered(&own, &from, &to, layout, [0, offset * to[axis]]));
            inputs.push(stored.buffer);
            offset += own[axis];
        }
        self.take(node, "concatenation", 0);
        let kernel = Kernel::Copy { copies, fill: None };
        Ok(Stored {
            buffer: self.push(node, kernel, inputs, shape.iter().product()),
            layout,
        })
    }

    pub(super) fn movement(
        &mut self,
        tensor: TensorId,
        node: &Node,
        how: &Move,
    ) -> Result<Stored, String> {
        let input = node.inputs[0];
        let (own, shape) = (self.shapes[input].clone(), self.shapes[tensor].clone());
        let bytes: usize = shape.iter().product();
        let stored = self.stored[input].ok_or("its input was not computed")?;
        match how {
            Move::Reinterpret => Ok(stored),
            Move::Reshape { .. } | Move::Flatten { .. } | Move::Squeeze(_) | Move::Unsqueeze(_) => {
                if own == shape {
                    return Ok(stored);
                }
                Ok(Stored {
                    buffer: self.stored(input, Layout::Plain)?,
                    layout: Layout::Plain,
                })
            }
            Move::Transpose(perm) => {
                // Where the output's axes lie in the bytes as they are.
                let order: Vec<usize> = storage_order(own.len(), stored.layout)
                    .iter()
                    .filter_map(|axis| perm.iter().position(|p| p == axis))
                    .collect();
                let places = [Layout::Plain, Layout::ChannelsLast];
                let kept = places
                    .into_iter()
                    .find(|l| storage_order(shape.len(), *l) == order);
                if let Some(layout) = kept {
                    return Ok(Stored {
                        buffer: stored.buffer,
                        layout,
                    });
                }
                let own_strides = logical_strides(&own, stored.layout);
                let from: Vec<usize> = perm.iter().map(|p| own_strides[*p]).collect();
                let copy = in_order(&shape, &from, Layout::Plain, [0, 0]);
                let kernel = Kernel::Copy {
                    copies: vec![copy],
                    fill: None,
                };
                let buffer = self.push(node, kernel, vec![stored.buffer], bytes);
                Ok(Stored {
                    buffer,
                    layout: Layout::Plain,
                })
            }
            Move::Slice(cuts) => {
                let mut from = logical_strides(&own, stored.layout);
                let mut offset = 0;
                for (axis, range, step) in shapes::slices(cuts, &own)? {
                    offset += range.start * from[axis];
                    from[axis] *= step;
                }
                let copy = in_order(&shape, &from, stored.layout, [offset, 0]);
                let kernel = Kernel::Copy {
                    copies: vec![copy],
                    fill: None,
                };
                let buffer = self.push(node, kernel, vec![stored.buffer], bytes);
                Ok(Stored {
                    buffer,
                    layout: stored.layout,
                })
            }
            Move::Pad { pads, fill } => {
                let from = logical_strides(&own, stored.layout);
                let to = logical_strides(&shape, stored.layout);
                let offset = pads
                    .iter()
                    .zip(&to)
                    .map(|(p, stride)| *p as usize * stride)
                    .sum();
                let copy = ordered(&own, &from, &to, stored.layout, [0, offset]);
                let fill = Some(fill ^ self.flip());
                let kernel = Kernel::Copy {
                    copies: vec![copy],
                    fill,
                };
                let buffer = self.push(node, kernel, vec![stored.buffer], bytes);
                Ok(Stored {
                    buffer,
                    layout: stored.layout,
                })
            }
            Move::SpaceToDepth(block) => {
                let [n, c, h, w] = shapes::picture(&own)?;
                let x = self.stored(input, Layout::ChannelsLast)?;
                // The output as it lies: batch, row, column, row and column within a block, channel.
                let sizes = [n, h / block, w / block, *block, *block, c];
                let row = w * c;
                let from = [h * row, block * row, block * c, row, c, 1];
                let copy = StridedCopy::new(&sizes, &from, &strides(&sizes), [0, 0]);
                let kernel = Kernel::Copy {
                    copies: vec![copy],
                    fill: None,
                };
                Ok(self.channels_last(node, kernel, x, bytes))
            }
            Move::Select { axis, at } => {
                let (axis, positions) = shapes::selected(*axis, at, &own)?;
                let from = logical_strides(&own, stored.layout);
                let to = logical_strides(&shape, stored.layout);
                let mut copies = Vec::new();
                let mut done = 0;
                // Neighbours that stay neighbours go together.
                for run in positions.chunk_by(|a, b| a + 1 == *b) {
                    let mut sizes = shape.clone();
                    sizes[axis] = run.len();
                    let offsets = [run[0] * from[axis], done * to[axis]];
                    copies.push(ordered(&sizes, &from, &to, stored.layout, offsets));
                    done += run.len();
                }
                let inputs = vec![stored.buffer; copies.len()];
                let kernel = Kernel::Copy { copies, fill: None };
                let buffer = self.push(node, kernel, inputs, bytes);
                Ok(Stored {
                    buffer,
                    layout: stored.layout,
                })
            }
            Move::ResizeNearest(resize, rounding) => {
                let [n, c, h, w] = shapes::picture(&own)?;
                if [shape[0], shape[1]] != [n, c] {
                    return Err("it resizes batch or channels".into());
                }
                let x = self.stored(input, Layout::ChannelsLast)?;
                let rows = shapes::nearest((resize, *rounding), 2, h, shape[2]);
                let columns = shapes::nearest((resize, *rounding), 3, w, shape[3]);
                let gather = Gather::new(Shape::new(h, w, c), rows, columns, 0..c).map_err(text)?;
                self.take(node, "nearest resize", 0);
                let kernel = Kernel::Resize {
                    gather,
                    batch: n,
                    channels: c,
                };
                Ok(self.channels_last(node, kernel, x, bytes))
            }
        }
    }
}
