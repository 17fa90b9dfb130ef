//! A fused region → steps and buffers.

mod buffers;
mod floats;
mod layout;
mod moves;
mod outputs;

use std::collections::HashMap;

use ocellus_int8_kernels::{
    Add, Addition, AveragePool, Conv, ConvSpec, Geometry, Isa, KernelError, Lut, MaxPool, Mul,
    Operand, Output as ConvOutput, Quantization, Residual, Shape, Sign, TableSum,
};

use super::{Kernel, OutputKind, Plan, Taken};
use crate::Error;
use crate::graph::{
    Convolution, Element, Limits, NO_LIMITS, Node, Op, Quant, Region, Source, TensorId, Weights,
    Window,
};
use crate::shapes;
use layout::{Layout, in_order, logical_strides, relayout, same_bytes};

/// A tensor's bytes: a buffer, or an input of the region.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Stored {
    buffer: Buffer,
    layout: Layout,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Buffer {
    /// Written by this step.
    Step(usize),
    Input(usize),
}

struct Compiler<'a> {
    region: &'a Region,
    shapes: &'a [Vec<usize>],
    isa: Isa,
    sign: Sign,
    steps: Vec<Draft>,
    stored: Vec<Option<Stored>>,
    /// A tensor in another layout than its own.
    converted: HashMap<(TensorId, bool), Stored>,
    scratch_bytes: usize,
    sums: usize,
    floats: usize,
    taken: Vec<Taken>,
}

struct Draft {
    node: String,
    kernel: Kernel,
    inputs: Vec<Buffer>,
    bytes: usize,
}

pub(super) fn compile(
    region: &Region,
    shapes: &[Vec<usize>],
    used: &[bool],
    isa: Isa,
) -> Result<Plan, Error> {
    let mut compiler = Compiler {
        region,
        shapes,
        isa,
        sign: isa.activations(),
        steps: Vec::new(),
        stored: vec![None; region.nodes.len()],
        converted: HashMap::new(),
        scratch_bytes: 0,
        sums: 0,
        floats: 0,
        taken: Vec::new(),
    };
    let mut sources = 0;
    for (tensor, node) in region.nodes.iter().enumerate() {
        let source = sources;
        sources += usize::from(matches!(node.op, Op::Source(_)));
        if used[tensor] {
            compiler
                .node(tensor, node, source)
                .map_err(|problem| Error::Malformed {
                    node: format!("`{}`", node.name),
                    problem,
                })?;
        }
    }
    let results: Vec<(Buffer, Vec<usize>, OutputKind)> = region
        .sinks
        .iter()
        .map(|sink| compiler.output(sink))
        .collect::<Result<_, _>>()?;
    Ok(compiler.finish(results))
}

impl Compiler<'_> {
    fn flip(&self) -> u8 {
        if self.sign == Sign::S8 { 0x80 } else { 0 }
    }

    fn value(&self, byte: u8) -> i32 {
        self.sign.value(byte ^ self.flip())
    }

    fn quantization(&self, quant: Quant, (min, max): Limits) -> Quantization {
        Quantization {
            zero: self.value(quant.zero),
            min: self.value(min),
            max: self.value(max),
        }
    }

    fn operand(&self, quant: Quant, output: Quant) -> Operand {
        Operand {
            zero: self.value(quant.zero),
            ratio: quant.scale / output.scale,
        }
    }

    fn push(
        &mut self,
        node: &Node,
        mut kernel: Kernel,
        mut inputs: Vec<Buffer>,
        bytes: usize,
    ) -> Buffer {
        if let Kernel::Copy { copies, .. } = &mut kernel {
            for (copy, input) in copies.iter_mut().zip(&mut inputs) {
                self.read_through(copy, input);
            }
        }
        self.steps.push(Draft {
            node: node.name.clone(),
            kernel,
            inputs,
            bytes,
        });
        Buffer::Step(self.steps.len() - 1)
    }

    fn take(&mut self, node: &Node, kernel: &'static str, macs: usize) {
        self.taken.push(Taken {
            node: node.name.clone(),
            kernel,
            macs: macs as u64,
            float: false,
        });
    }

    fn take_float(&mut self, node: &Node, kernel: &'static str, macs: usize) {
        self.take(node, kernel, macs);
        if let Some(taken) = self.taken.last_mut() {
            taken.float = true;
        }
    }

    fn quant(&self, tensor: TensorId) -> Result<Quant, String> {
        self.region.nodes[tensor]
            .quant()
            .ok_or_else(|| "its input is of floats".to_string())
    }

    /// The tensor's bytes in a layout; they are moved where they lie otherwise.
    fn stored(&mut self, tensor: TensorId, layout: Layout) -> Result<Buffer, String> {
        let stored = self.stored[tensor].ok_or("its input was not computed")?;
        let shape = &self.shapes[tensor];
        if stored.layout == layout || same_bytes(shape) {
            return Ok(stored.buffer);
        }
        let key = (tensor, layout == Layout::ChannelsLast);
        if let Some(known) = self.converted.get(&key) {
            return Ok(known.buffer);
        }
        let copy = relayout(shape, stored.layout, layout);
        let bytes = shape.iter().product();
        let kernel = Kernel::Copy {
            copies: vec![copy],
            fill: None,
        };
        let buffer = self.push(
            &self.region.nodes[tensor].clone(),
            kernel,
            vec![stored.buffer],
            bytes,
        );
        self.converted.insert(key, Stored { buffer, layout });
        Ok(buffer)
    }

    fn node(&mut self, tensor: TensorId, node: &Node, source: usize) -> Result<(), String> {
        let shape = self.shapes[tensor].clone();
        let bytes: usize = shape.iter().product();
        let stored = match &node.op {
            Op::Source(kind) => self.source(tensor, node, kind, source)?,
            Op::Convolution(c) => {
                let x = self.stored(node.inputs[0], Layout::ChannelsLast)?;
                let input = shapes::picture(&self.shapes[node.inputs[0]])?;
                let geometry = geometry(&c.window, input, &shape, c.groups);
                let mut inputs = vec![x];
                if let Some(residual) = node.inputs.get(1) {
                    inputs.push(self.stored(*residual, Layout::ChannelsLast)?);
                }
                self.product(
                    node,
                    c,
                    geometry,
                    inputs,
                    shape[0],
                    bytes,
                    Layout::ChannelsLast,
                )?
            }
            Op::FullyConnected(c) => {
                let x = self.stored(node.inputs[0], Layout::Plain)?;
                let rows = bytes / c.outputs;
                let geometry = Geometry::window(
                    Shape::new(1, rows, c.depth),
                    c.outputs,
                    [1, 1],
                    [1, 1],
                    [0; 4],
                );
                self.product(node, c, geometry, vec![x], 1, bytes, Layout::Plain)?
            }
            Op::Add(limits) | Op::Mul(limits) | Op::TableSum { limits, .. } => {
                self.sum(tensor, node, *limits)?
            }
            Op::FloatDepthwise(c, limits) => self.float_depthwise(tensor, node, c, *limits)?,
            Op::ResizeLinear {
                resize,
                numbers,
                limits,
            } => self.resize_linear(tensor, node, resize, numbers, *limits)?,
            Op::MaxPool(window) => {
                let x = self.stored(node.inputs[0], Layout::ChannelsLast)?;
                let geometry = self.pool_geometry(window, node, &shape)?;
                let pool = MaxPool::new(self.isa, self.sign, geometry).map_err(text)?;
                self.take(node, "max pool", 0);
                let kernel = Kernel::MaxPool {
                    pool,
                    batch: shape[0],
                    channels: shape[1],
                };
                self.channels_last(node, kernel, x, bytes)
            }
            Op::AveragePool {
                window,
                count_include_pad,
            } => {
                let geometry = self.pool_geometry(window, node, &shape)?;
                self.average(node, geometry, *count_include_pad, shape[0], bytes)?
            }
            Op::GlobalAverage { .. } => {
                let [n, c, h, w] = shapes::picture(&self.shapes[node.inputs[0]])?;
                let geometry = Geometry::window(Shape::new(h, w, c), c, [h, w], [1, 1], [0; 4]);
                self.average(node, geometry, false, n, bytes)?
            }
            Op::Table(table) => {
                let stored = self.stored[node.inputs[0]].ok_or("its input was not computed")?;
                let flip = self.flip();
                let table = std::array::from_fn(|b| table[b ^ usize::from(flip)] ^ flip);
                self.take(node, "table", 0);
                let buffer = self.push(
                    node,
                    Kernel::Table(Lut::new(self.isa, table).map_err(text)?),
                    vec![stored.buffer],
                    bytes,
                );
                Stored {
                    buffer,
                    layout: stored.layout,
                }
            }
            Op::Concat { axis } => self.concat(tensor, node, *axis)?,
            Op::Move(how) => self.movement(tensor, node, how)?,
        };
        self.stored[tensor] = Some(stored);
        Ok(())
    }

    fn channels_last(&mut self, node: &Node, kernel: Kernel, x: Buffer, bytes: usize) -> Stored {
        let buffer = self.push(node, kernel, vec![x], bytes);
        Stored {
            buffer,
            layout: Layout::ChannelsLast,
        }
    }

    fn source(
        &mut self,
        tensor: TensorId,
        node: &Node,
        kind: &Source,
        at: usize,
    ) -> Result<Stored, String> {
        let shape = self.shapes[tensor].clone();
        let bytes = shape.iter().product();
        let buffer = Buffer::Input(at);
        let (layout, flip) = match kind {
            Source::Float { .. } => {
                // Turned only if somebody looks at it as a picture.
                let spatial = |n: &Node| {
                    matches!(
                        n.op,
                        Op::Convolution(_)
                            | Op::MaxPool(_)
                            | Op::AveragePool { .. }
                            | Op::GlobalAverage { .. }
                            | Op::Add(_)
                            | Op::Mul(_)
                            | Op::FloatDepthwise(..)
                            | Op::ResizeLinear { .. }
                            | Op::TableSum { .. }
                            | Op::Concat { .. }
                            | Op::Move(_)
                            | Op::Table(_)
                    )
                };
                let turned = shape.len() == 4
                    && self
                        .region
                        .nodes
                        .iter()
                        .any(|n| n.inputs.contains(&tensor) && spatial(n));
                let layout = if turned {
                    Layout::ChannelsLast
                } else {
                    Layout::Plain
                };
                let quant = node.quant().ok_or("it is of floats")?;
                let copy = relayout(&shape, Layout::Plain, layout);
                let buffer = self.push(
                    node,
                    Kernel::Quantize {
                        quant,
                        copy,
                        flip: self.flip(),
                    },
                    vec![buffer],
                    bytes,
                );
                return Ok(Stored { buffer, layout });
            }
            Source::Bytes {
                signed,
                channels_last,
                ..
            } => {
                let layout = if *channels_last {
                    Layout::ChannelsLast
                } else {
                    Layout::Plain
                };
                (layout, *signed != (self.sign == Sign::S8))
            }
            Source::Region { .. } => (Layout::ChannelsLast, false),
        };
        let layout = if shape.len() == 4 {
            layout
        } else {
            Layout::Plain
        };
        let buffer = if flip {
            self.push(node, Kernel::Flip, vec![buffer], bytes)
        } else {
            buffer
        };
        Ok(Stored { buffer, layout })
    }

    #[allow(clippy::too_many_arguments)]
    fn product(
        &mut self,
        node: &Node,
        c: &Convolution,
        geometry: Geometry,
        inputs: Vec<Buffer>,
        batch: usize,
        bytes: usize,
        layout: Layout,
    ) -> Result<Stored, String> {
        let x = self.quant(node.inputs[0])?;
        let Weights::Ohwi(weights) = &c.weights else {
            return Err("its weights are not there".into());
        };
        let (scale, output) = match (node.element, c.residual) {
            (Element::Float, _) => (1.0, ConvOutput::Float),
            (Element::Byte(quant), None) => (
                quant.scale,
                ConvOutput::Quantized(self.quantization(quant, c.limits), None),
            ),
            (Element::Byte(quant), Some(r)) => {
                let conv = self.operand(r.conv, quant);
                let other = self.operand(self.quant(node.inputs[1])?, quant);
                let operands = match r.conv_first {
                    true => [conv, other],
                    false => [other, conv],
                };
                let output = self.quantization(quant, r.limits);
                let residual = Residual {
                    addition: Addition::new(self.sign, operands, output).map_err(text)?,
                    conv_first: r.conv_first,
                };
                (
                    r.conv.scale,
                    ConvOutput::Quantized(self.quantization(r.conv, c.limits), Some(residual)),
                )
            }
        };
        let multipliers: Vec<f32> = c
            .weight_scales
            .iter()
            .map(|w| x.scale * w / scale)
            .collect();
        let spec = ConvSpec {
            geometry,
            sign: self.sign,
            input_zero: self.value(x.zero),
            weights,
            weight_zeros: &c.weight_zeros,
            bias: &c.bias,
            multipliers: &multipliers,
            output,
        };
        let conv = Box::new(Conv::new(self.isa, &spec).map_err(text)?);
        self.scratch_bytes = self.scratch_bytes.max(conv.scratch_bytes());
        let kind = match (&node.op, c.groups, c.depth) {
            (Op::FullyConnected(_), ..) => "fully connected",
            (_, 1, _) if c.residual.is_some() => "convolution + addition",
            (_, 1, _) => "convolution",
            (_, _, 1) => "depthwise convolution",
            _ => "grouped convolution",
        };
        self.take(node, kind, geometry.macs() * batch);
        let outputs = c.outputs;
        let buffer = if node.element == Element::Float {
            self.floats += bytes;
            self.push(
                node,
                Kernel::Product {
                    conv,
                    batch,
                    outputs,
                    elements: bytes,
                },
                inputs,
                0,
            )
        } else {
            self.push(
                node,
                Kernel::Convolution {
                    conv,
                    batch,
                    outputs,
                },
                inputs,
                bytes,
            )
        };
        Ok(Stored { buffer, layout })
    }

    fn sum(&mut self, tensor: TensorId, node: &Node, limits: Limits) -> Result<Stored, String> {
        let shape = self.shapes[tensor].clone();
        let bytes = shape.iter().product();
        let (a, b) = (node.inputs[0], node.inputs[1]);
        let layouts = [a, b].map(|t| self.stored[t].map(|s| s.layout));
        let alike = layouts[0] == layouts[1] && self.shapes[a] == self.shapes[b];
        let layout = match layouts[0] {
            Some(layout) if alike => layout,
            _ if shape.len() == 4 => Layout::ChannelsLast,
            _ => Layout::Plain,
        };
        let mut inputs = Vec::new();
        for t in [a, b] {
            inputs.push(self.broadcast(node, t, &shape, layout)?);
        }
        let output = node.quant().ok_or("it is of floats")?;
        let (qa, qb) = (self.quant(a)?, self.quant(b)?);
        let quantization = self.quantization(output, limits);
        let kernel = match &node.op {
            Op::TableSum {
                numbers, product, ..
            } => {
                self.take_float(node, "sum of functions", 0);
                let [p, q] = [0, 1].map(|i| self.numbers(&numbers[i]));
                let output = self.float_output(node, limits)?;
                let sum = TableSum::new(self.isa, self.sign, [&p, &q], *product, output);
                Kernel::TableSum(sum.map_err(text)?)
            }
            Op::Add(_) => {
                self.take(node, "addition", 0);
                let operands = [qa, qb].map(|quant| self.operand(quant, output));
                Kernel::Add(Add::new(self.isa, self.sign, operands, quantization).map_err(text)?)
            }
            _ => {
                self.take(node, "multiplication", 0);
                let zeros = [self.value(qa.zero), self.value(qb.zero)];
                let ratio = qa.scale * qb.scale / output.scale;
                let mul = Mul::new(self.isa, self.sign, zeros, ratio, quantization);
                Kernel::Mul(mul.map_err(text)?)
            }
        };
        Ok(Stored {
            buffer: self.push(node, kernel, inputs, bytes),
            layout,
        })
    }

    /// A tensor repeated to a shape.
    fn broadcast(
        &mut self,
        node: &Node,
        tensor: TensorId,
        shape: &[usize],
        layout: Layout,
    ) -> Result<Buffer, String> {
        let own = self.shapes[tensor].clone();
        if own == shape {
            return self.stored(tensor, layout);
        }
        let stored = self.stored[tensor].ok_or("its input was not computed")?;
        let own_strides = logical_strides(&own, stored.layout);
        let from: Vec<usize> = (0..shape.len())
            .map(|i| match (i + own.len()).checked_sub(shape.len()) {
                Some(j) if own[j] != 1 => own_strides[j],
                _ => 0,
            })
            .collect();
        let copy = in_order(shape, &from, layout, [0, 0]);
        let kernel = Kernel::Copy {
            copies: vec![copy],
            fill: None,
        };
        Ok(self.push(node, kernel, vec![stored.buffer], shape.iter().product()))
    }

    fn pool_geometry(
        &self,
        window: &Window,
        node: &Node,
        shape: &[usize],
    ) -> Result<Geometry, String> {
        let input = shapes::picture(&self.shapes[node.inputs[0]])?;
        Ok(geometry(window, input, shape, 1))
    }

    fn average(
        &mut self,
        node: &Node,
        geometry: Geometry,
        count_include_pad: bool,
        batch: usize,
        bytes: usize,
    ) -> Result<Stored, String> {
        let x = self.stored(node.inputs[0], Layout::ChannelsLast)?;
        let output = node.quant().ok_or("it is of floats")?;
        let operand = self.operand(self.quant(node.inputs[0])?, output);
        let quantization = self.quantization(output, NO_LIMITS);
        let pool = AveragePool::new(
            self.isa,
            self.sign,
            geometry,
            operand,
            quantization,
            count_include_pad,
        )
        .map_err(text)?;
        self.sums = self.sums.max(pool.scratch_len());
        self.take(node, "average pool", 0);
        let kernel = Kernel::AveragePool {
            pool,
            batch,
            channels: geometry.output.c,
        };
        Ok(self.channels_last(node, kernel, x, bytes))
    }
}

fn text(e: KernelError) -> String {
    e.to_string()
}

fn geometry(
    window: &Window,
    [_, c, h, w]: [usize; 4],
    output: &[usize],
    groups: usize,
) -> Geometry {
    Geometry {
        input: Shape::new(h, w, c),
        output: Shape::new(output[2], output[3], output[1]),
        kernel: window.kernel,
        stride: window.stride,
        dilation: window.dilation,
        pads: shapes::pads(window, [h, w]),
        groups,
    }
}
