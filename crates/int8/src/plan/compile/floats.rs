//! Float operators between bytes.

use ocellus_int8_kernels::{
    FloatDepthwise, FloatDepthwiseSpec, FloatOutput, Interpolate, Numbers, Shape,
};

use super::layout::Layout;
use super::{Compiler, Stored, geometry, text};
use crate::graph::{self, Limits, Node, RealTable, Resize, TensorId};
use crate::plan::Kernel;
use crate::shapes;

impl Compiler<'_> {
    /// What the bytes, as the kernels have them, stand for.
    pub(super) fn numbers(&self, table: &RealTable) -> Numbers {
        std::array::from_fn(|byte| table[byte ^ usize::from(self.flip())])
    }

    pub(super) fn float_output(&self, node: &Node, limits: Limits) -> Result<FloatOutput, String> {
        let quant = node.quant().ok_or("it is of floats")?;
        Ok(FloatOutput {
            scale: quant.scale,
            quantization: self.quantization(quant, limits),
        })
    }

    pub(super) fn float_depthwise(
        &mut self,
        tensor: TensorId,
        node: &Node,
        c: &graph::FloatDepthwise,
        limits: Limits,
    ) -> Result<Stored, String> {
        let x = self.stored(node.inputs[0], Layout::ChannelsLast)?;
        let input = shapes::picture(&self.shapes[node.inputs[0]])?;
        let shape = &self.shapes[tensor];
        let (batch, bytes) = (shape[0], shape.iter().product());
        let geometry = geometry(&c.window, input, shape, c.channels);
        let spec = FloatDepthwiseSpec {
            geometry,
            sign: self.sign,
            numbers: &self.numbers(&c.numbers),
            weights: &c.weights,
            bias: &c.bias,
            function: c.function,
            output: self.float_output(node, limits)?,
        };
        let conv = Box::new(FloatDepthwise::new(self.isa, &spec).map_err(text)?);
        self.scratch_bytes = self.scratch_bytes.max(conv.scratch_bytes());
        self.take_float(node, "float depthwise convolution", geometry.macs() * batch);
        let kernel = Kernel::FloatDepthwise {
            conv,
            batch,
            channels: c.channels,
        };
        Ok(self.channels_last(node, kernel, x, bytes))
    }

    pub(super) fn resize_linear(
        &mut self,
        tensor: TensorId,
        node: &Node,
        resize: &Resize,
        numbers: &RealTable,
        limits: Limits,
    ) -> Result<Stored, String> {
        let x = self.stored(node.inputs[0], Layout::ChannelsLast)?;
        let [n, c, h, w] = shapes::picture(&self.shapes[node.inputs[0]])?;
        let shape = &self.shapes[tensor];
        if [shape[0], shape[1]] != [n, c] {
            return Err("it resizes batch or channels".into());
        }
        let bytes = shape.iter().product();
        let rows = shapes::neighbours(resize, 2, h, shape[2]);
        let columns = shapes::neighbours(resize, 3, w, shape[3]);
        let output = self.float_output(node, limits)?;
        let (input, numbers) = (Shape::new(h, w, c), self.numbers(numbers));
        let resize = Interpolate::new(self.isa, self.sign, input, rows, columns, &numbers, output);
        let resize = Box::new(resize.map_err(text)?);
        self.scratch_bytes = self.scratch_bytes.max(resize.scratch_bytes());
        self.take_float(node, "linear resize", 0);
        let kernel = Kernel::Interpolate {
            resize,
            batch: n,
            channels: c,
        };
        Ok(self.channels_last(node, kernel, x, bytes))
    }
}
