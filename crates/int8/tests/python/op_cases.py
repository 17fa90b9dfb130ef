"""Small quantized graphs, one an operator and a way of writing it: python op_cases.py OUT"""

import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from cases import write

KIND = {"u8": (np.uint8, TensorProto.UINT8), "s8": (np.int8, TensorProto.INT8)}
RNG = np.random.default_rng(7)


class Graph:
    """Nodes and constants, in order."""

    def __init__(self, kind: str = "u8", opset: int = 13):
        self.kind, self.opset = kind, opset
        self.nodes, self.constants, self.inputs, self.count = [], [], {}, 0

    def name(self) -> str:
        self.count += 1
        return f"t{self.count}"

    def constant(self, value) -> str:
        name = self.name()
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def node(self, op: str, *inputs: str, domain: str = "", **attributes) -> str:
        out = self.name()
        self.nodes.append(helper.make_node(op, inputs, [out], domain=domain, **attributes))
        return out

    def scale(self, scale: float, zero: int | None = None) -> list[str]:
        dtype = KIND[self.kind][0]
        zero = (128 if self.kind == "u8" else 0) if zero is None else zero
        return [self.constant(np.float32(scale)), self.constant(dtype(zero))]

    def integers(self, shape, scale: float, zero: int | None = None) -> str:
        """A graph input of integers, dequantized."""
        raw, params = self.raw(shape), self.scale(scale, zero)
        return self.node("DequantizeLinear", raw, *params)

    def raw(self, shape) -> str:
        dtype = KIND[self.kind][0]
        name = f"in{len(self.inputs)}"
        self.inputs[name] = RNG.integers(np.iinfo(dtype).min, np.iinfo(dtype).max + 1, shape).astype(dtype)
        return name

    def quantized(self, x: str, scale: float, zero: int | None = None) -> str:
        return self.node("QuantizeLinear", x, *self.scale(scale, zero))

    def requantized(self, x: str, scale: float, zero: int | None = None) -> str:
        params = self.scale(scale, zero)
        return self.node("DequantizeLinear", self.node("QuantizeLinear", x, *params), *params)

    def weights(self, shape, per_channel: bool, axis: int = 0) -> tuple[str, np.ndarray]:
        w = RNG.integers(-127, 128, shape).astype(np.int8)
        n = shape[axis]
        if per_channel:
            scales = (0.002 + RNG.random(n) * 0.01).astype(np.float32)
            params = [self.constant(scales), self.constant(np.zeros(n, np.int8))]
            return self.node("DequantizeLinear", self.constant(w), *params, axis=axis), scales
        params = [self.constant(np.float32(0.006)), self.constant(np.int8(0))]
        return self.node("DequantizeLinear", self.constant(w), *params), np.full(n, 0.006, np.float32)

    def bias(self, scales: np.ndarray, input_scale: float) -> str:
        b = RNG.integers(-20000, 20000, len(scales)).astype(np.int32)
        scale = self.constant((scales * np.float32(input_scale)).astype(np.float32))
        zero = self.constant(np.zeros(len(scales), np.int32))
        return self.node("DequantizeLinear", self.constant(b), scale, zero, axis=0)

    def save(self, out: Path, name: str, output: str, step: float = 1.0) -> None:
        infos = [helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape) for n, v in self.inputs.items()]
        graph = helper.make_graph(
            self.nodes, name, infos, [helper.make_empty_tensor_value_info(output)], self.constants
        )
        opsets = [helper.make_opsetid("", self.opset), helper.make_opsetid("com.microsoft", 1)]
        write(out, name, helper.make_model(graph, opset_imports=opsets, ir_version=8), self.inputs, step)


def convolutions(out: Path) -> None:
    plain = dict(kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    variants = {
        "3x3": ([1, 16, 9, 11], [24, 16, 3, 3], plain),
        "3x3-stride2": ([1, 16, 9, 11], [24, 16, 3, 3], dict(plain, strides=[2, 2])),
        "1x1": ([1, 19, 7, 5], [33, 19, 1, 1], {}),
        "1x1-stride2": ([1, 32, 8, 8], [17, 32, 1, 1], dict(strides=[2, 2])),
        "7x7-first": ([1, 3, 30, 30], [64, 3, 7, 7], dict(strides=[2, 2], pads=[3, 3, 3, 3])),
        "depthwise": ([1, 24, 9, 9], [24, 1, 3, 3], dict(plain, group=24)),
        "depthwise-dilated": ([1, 24, 17, 17], [24, 1, 3, 3], dict(group=24, dilations=[2, 2], pads=[2, 2, 2, 2])),
        "depthwise-multiplier": ([1, 8, 9, 9], [16, 1, 3, 3], dict(plain, group=8)),
        "grouped": ([1, 24, 9, 9], [32, 6, 3, 3], dict(plain, group=4)),
        "asymmetric": ([1, 8, 9, 8], [8, 8, 3, 2], dict(pads=[0, 1, 2, 0], strides=[1, 2])),
        "same-upper": ([1, 8, 10, 10], [8, 8, 3, 3], dict(auto_pad="SAME_UPPER", strides=[2, 2])),
        "same-lower": ([1, 8, 10, 10], [8, 8, 3, 3], dict(auto_pad="SAME_LOWER", strides=[2, 2])),
        "valid": ([1, 8, 10, 10], [8, 8, 5, 5], dict(auto_pad="VALID")),
    }
    for kind in KIND:
        for name, (x, w, attributes) in variants.items():
            for per_channel in (False, True):
                g = Graph(kind)
                weights, scales = g.weights(w, per_channel)
                y = g.node("Conv", g.integers(x, 0.02), weights, g.bias(scales, 0.02), **attributes)
                if name in ("3x3", "grouped"):
                    y = g.node("Relu", y)
                g.save(out, f"conv-{name}-{kind}-{'channel' if per_channel else 'tensor'}", g.quantized(y, 0.9, 10))
    for opset in (10, 11, 13, 17, 19, 21):
        g = Graph("u8", opset)
        weights, scales = g.weights([8, 8, 3, 3], False)
        y = g.node("Clip", g.node("Conv", g.integers([1, 8, 6, 6], 0.02), weights), *([] if opset < 11 else [g.constant(np.float32(0)), g.constant(np.float32(6))]), **(dict(min=0.0, max=6.0) if opset < 11 else {}))
        g.save(out, f"conv-clip-opset{opset}", g.quantized(y, 6 / 255, 0))
    # PyTorch's way: float weights that the graph quantizes, a float bias.
    g = Graph("u8")
    w = RNG.normal(size=[12, 8, 3, 3]).astype(np.float32) * 0.1
    params = [g.constant(np.abs(w).max((1, 2, 3)) / 127), g.constant(np.zeros(12, np.int8))]
    w = g.node("DequantizeLinear", g.node("QuantizeLinear", g.constant(w), *params, axis=0), *params, axis=0)
    bias = g.constant(RNG.normal(size=12).astype(np.float32))
    y = g.node("Relu", g.node("Conv", g.integers([1, 8, 9, 9], 0.02), w, bias, pads=[1, 1, 1, 1]))
    g.save(out, "conv-pytorch", g.quantized(y, 0.03, 0))
    # Weights of u8 with a zero point, as TFLite's old converters write them.
    g = Graph("u8")
    w = g.constant(RNG.integers(0, 256, [12, 8, 3, 3]).astype(np.uint8))
    w = g.node("DequantizeLinear", w, g.constant(np.float32(0.004)), g.constant(np.uint8(117)))
    g.save(out, "conv-u8-weights", g.quantized(g.node("Conv", g.integers([1, 8, 9, 9], 0.02), w, pads=[1, 1, 1, 1]), 0.2, 100))
    # A residual addition, with a Relu, and with one between the two.
    for kind in KIND:
        g = Graph(kind)
        x = g.integers([1, 16, 8, 8], 0.02)
        weights, scales = g.weights([16, 16, 3, 3], True)
        y = g.requantized(g.node("Conv", x, weights, g.bias(scales, 0.02), pads=[1, 1, 1, 1]), 0.8, 100 if kind == "u8" else -3)
        g.save(out, f"residual-{kind}", g.quantized(g.node("Relu", g.node("Add", y, x)), 0.5, 0 if kind == "u8" else -128))


def products(out: Path) -> None:
    for kind in KIND:
        for per_channel in (False, True):
            suffix = f"{kind}-{'channel' if per_channel else 'tensor'}"
            g = Graph(kind)
            weights, scales = g.weights([10, 70], per_channel)
            y = g.node("Gemm", g.integers([1, 70], 0.02), weights, g.bias(scales, 0.02), transB=1)
            g.save(out, f"gemm-{suffix}", g.quantized(y, 0.9, 3))
            g = Graph(kind)
            weights, scales = g.weights([70, 10], per_channel, 1)
            y = g.node("Add", g.node("MatMul", g.integers([5, 70], 0.02), weights), g.bias(scales, 0.02))
            g.save(out, f"matmul-{suffix}", g.quantized(y, 0.9, 3))
            g = Graph(kind)
            weights, scales = g.weights([10, 70], per_channel)
            y = g.node("Gemm", g.integers([1, 70], 0.02), weights, g.bias(scales, 0.02), transB=1)
            g.save(out, f"gemm-float-{suffix}", y, 0.05)
    g = Graph("u8")
    w, _ = g.weights([10, 64], True)
    w = g.node("Transpose", w, perm=[1, 0])
    x = g.node("Flatten", g.integers([1, 4, 4, 4], 0.02))
    g.save(out, "matmul-transposed", g.quantized(g.node("MatMul", x, w), 0.9, 3))


def elementwise(out: Path) -> None:
    functions = {
        "Sigmoid": {}, "Tanh": {}, "HardSigmoid": {}, "HardSwish": {}, "LeakyRelu": dict(alpha=0.1), "Elu": {}, "Softplus": {},
        "Abs": {}, "Neg": {}, "Erf": {}, "Exp": {}, "Relu": {},
    }
    for kind in KIND:
        for op, attributes in functions.items():
            g = Graph(kind, 17)
            y = g.node(op, g.integers([1, 5, 6, 7], 0.03), **attributes)
            g.save(out, f"{op}-{kind}", g.quantized(y, 0.05 if op == "Exp" else 0.02))
        g = Graph(kind)
        x = g.integers([1, 5, 6, 7], 0.03)
        g.save(out, f"silu-{kind}", g.quantized(g.node("Mul", x, g.node("Sigmoid", x)), 0.02))
        for op in ("Add", "Mul"):
            g = Graph(kind)
            y = g.node(op, g.integers([1, 5, 6, 7], 0.03), g.integers([1, 5, 6, 7], 0.011, 77))
            g.save(out, f"{op}-{kind}", g.quantized(y, 0.024, 99))
            g = Graph(kind)
            y = g.node(op, g.integers([1, 5, 6, 7], 0.03), g.integers([1, 5, 1, 1], 0.011, 77))
            g.save(out, f"{op}-broadcast-{kind}", g.quantized(y, 0.024, 99))
            g = Graph(kind)
            y = g.node(op, g.integers([1, 5, 6, 7], 0.03), g.constant(np.float32(1.5)))
            g.save(out, f"{op}-scalar-{kind}", g.quantized(y, 0.04, 99))


def pools_and_moves(out: Path) -> None:
    for kind in KIND:
        pools = {
            "max": ("MaxPool", dict(kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])),
            "max-ceil": ("MaxPool", dict(kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)),
            "average": ("AveragePool", dict(kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])),
            "average-padded": ("AveragePool", dict(kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], count_include_pad=1)),
            "global": ("GlobalAveragePool", {}),
            "mean": ("ReduceMean", dict(axes=[2, 3], keepdims=0)),
        }
        for name, (op, attributes) in pools.items():
            g = Graph(kind)
            y = g.node(op, g.integers([1, 17, 9, 7], 0.03), **attributes)
            g.save(out, f"pool-{name}-{kind}", g.quantized(y, 0.03))
        moves = {
            "concat": lambda g: g.node("Concat", g.integers([1, 3, 6, 7], 0.03), g.integers([1, 5, 6, 7], 0.02), axis=1),
            "concat-rows": lambda g: g.node("Concat", g.integers([1, 3, 6, 7], 0.03), g.integers([1, 3, 2, 7], 0.02), axis=2),
            "slice": lambda g: g.node("Slice", g.integers([1, 6, 6, 7], 0.03), *[g.constant(np.int64(v)) for v in ([1, 0], [5, 2147483647], [1, 2], [1, 2])]),
            "pad": lambda g: g.node("Pad", g.integers([1, 3, 4, 5], 0.03, 90), g.constant(np.int64([0, 2, 0, 1, 0, 1, 3, 0]))),
            "flatten": lambda g: g.node("Flatten", g.integers([1, 3, 4, 5], 0.03)),
            "reshape": lambda g: g.node("Reshape", g.integers([1, 6, 4, 5], 0.03), g.constant(np.int64([0, 3, -1, 5]))),
            "transpose": lambda g: g.node("Transpose", g.integers([1, 3, 4, 5], 0.03), perm=[0, 2, 3, 1]),
            "transpose-odd": lambda g: g.node("Transpose", g.integers([2, 3, 4, 5], 0.03), perm=[1, 3, 0, 2]),
            "squeeze": lambda g: g.node("Squeeze", g.integers([1, 3, 1, 5], 0.03), g.constant(np.int64([2]))),
            "unsqueeze": lambda g: g.node("Unsqueeze", g.integers([3, 5], 0.03), g.constant(np.int64([0, -1]))),
        }
        for mode in ("asymmetric", "half_pixel", "align_corners"):
            for rounding in ("floor", "round_prefer_floor", "round_prefer_ceil"):
                moves[f"resize-{mode}-{rounding}"] = lambda g, m=mode, r=rounding: g.node(
                    "Resize", g.integers([1, 3, 4, 5], 0.03), "", g.constant(np.float32([1, 1, 2, 2])), coordinate_transformation_mode=m, nearest_mode=r, mode="nearest")
        for name, move in moves.items():
            g = Graph(kind)
            y = move(g)
            g.save(out, f"move-{name}-{kind}", g.quantized(y, 0.03))


def floats(out: Path) -> None:
    """What stays float between quantized tensors."""
    windows = {
        "3x3": ([1, 24, 9, 11], 3, dict(pads=[1, 1, 1, 1])),
        "3x3-stride2": ([2, 13, 10, 9], 3, dict(pads=[1, 1, 1, 1], strides=[2, 2])),
        "5x5-dilated": ([1, 8, 12, 17], 5, dict(pads=[4, 4, 4, 4], dilations=[2, 2])),
        "valid": ([1, 5, 7, 7], 3, dict(auto_pad="VALID")),
        "same": ([1, 16, 10, 10], 3, dict(auto_pad="SAME_UPPER", strides=[2, 2])),
    }
    for kind in KIND:
        for name, (shape, size, attributes) in windows.items():
            for function in ("plain", "sigmoid", "silu", "relu6"):
                g = Graph(kind)
                x = g.integers(shape, 0.03)
                x = g.node("Mul", x, g.node("Sigmoid", x))
                w = g.constant((RNG.normal(size=[shape[1], 1, size, size]) * 0.3).astype(np.float32))
                bias = [g.constant(RNG.normal(size=shape[1]).astype(np.float32))] if name != "valid" else []
                y = g.node("Conv", x, w, *bias, group=shape[1], **attributes)
                if function == "relu6":
                    y = g.node("Clip", y, g.constant(np.float32(0)), g.constant(np.float32(6)))
                elif function != "plain":
                    s = g.node("Sigmoid", y)
                    y = s if function == "sigmoid" else g.node("Mul", y, s)
                g.save(out, f"float-depthwise-{name}-{function}-{kind}", g.quantized(y, 0.02))
        for mode in ("asymmetric", "half_pixel", "pytorch_half_pixel", "align_corners"):
            for size in ([1, 1, 2.5, 3.1], [1, 1, 0.5, 0.7]):
                g = Graph(kind)
                y = g.node("Resize", g.integers([2, 21, 9, 7], 0.03), "", g.constant(np.float32(size)), coordinate_transformation_mode=mode, mode="linear")
                g.save(out, f"resize-linear-{mode}-{size[2]}-{kind}", g.quantized(g.node("Relu", y), 0.02))
        g = Graph(kind)
        y = g.node("Resize", g.integers([1, 3, 1, 1], 0.03), "", "", g.constant(np.int64([1, 3, 5, 6])), coordinate_transformation_mode="half_pixel", mode="linear")
        g.save(out, f"resize-linear-sizes-{kind}", g.quantized(y, 0.03))
        for op in ("Add", "Mul"):
            g = Graph(kind)
            a, b = g.integers([1, 5, 6, 7], 0.03), g.integers([1, 5, 6, 7], 0.02, 77)
            y = g.node(op, g.node("Mul", a, g.node("Sigmoid", a)), b)
            both = g.node("Concat", y, g.node("Tanh", b), axis=1)
            g.save(out, f"{op}-of-functions-{kind}", g.quantized(both, 0.03, 60))
        for last in (0, 1):
            for keep in (0, 1):
                g = Graph(kind)
                y = g.requantized(g.node("Resize", g.integers([2, 21, 9, 7], 0.3), "", g.constant(np.float32([1, 1, 2, 2])), coordinate_transformation_mode="half_pixel", mode="linear"), 2.0)
                g.save(out, f"argmax-{'last' if last else 'first'}-{keep}-{kind}", g.node("ArgMax", y, axis=1, keepdims=keep, select_last_index=last))
        # Moved, and only then quantized.
        g = Graph(kind)
        g.inputs["in0"] = RNG.normal(size=[1, 3, 8, 6]).astype(np.float32)
        y = g.node("SpaceToDepth", "in0", blocksize=2)
        y = g.node("Gather", y, g.constant(np.int64([0, 1, 2, 6, 7, 8, 3, 4, 5, 9, -2, -1])), axis=1)
        y = g.requantized(y, 0.02)
        weights, scales = g.weights([16, 12, 3, 3], True)
        y = g.node("Conv", y, weights, g.bias(scales, 0.02), pads=[1, 1, 1, 1])
        g.save(out, f"space-to-depth-{kind}", g.quantized(y, 0.2))


def qoperators(out: Path) -> None:
    for kind in KIND:
        g = Graph(kind)
        w = g.constant(RNG.integers(-127, 128, [9, 8, 3, 3]).astype(np.int8))
        scales = g.constant((0.002 + RNG.random(9) * 0.01).astype(np.float32))
        y = g.node("QLinearConv", g.raw([1, 8, 7, 7]), *g.scale(0.02), w, scales, g.constant(np.zeros(9, np.int8)), *g.scale(0.3), g.constant(RNG.integers(-999, 999, 9).astype(np.int32)), pads=[1, 1, 1, 1])
        g.save(out, f"QLinearConv-{kind}", y)
        for op in ("QLinearAdd", "QLinearMul"):
            g = Graph(kind)
            y = g.node(op, g.raw([1, 5, 6, 7]), *g.scale(0.03), g.raw([1, 5, 6, 7]), *g.scale(0.02, 70), *g.scale(0.04, 33), domain="com.microsoft")
            g.save(out, f"{op}-{kind}", y)
        for op, attributes in {"QLinearSigmoid": {}, "QLinearLeakyRelu": dict(alpha=0.1), "QLinearGlobalAveragePool": dict(channels_last=0), "QLinearAveragePool": dict(kernel_shape=[2, 2])}.items():
            g = Graph(kind)
            y = g.node(op, g.raw([1, 8, 6, 6]), *g.scale(0.03), *g.scale(0.02, 40), domain="com.microsoft", **attributes)
            g.save(out, f"{op}-{kind}", y)
        g = Graph(kind)
        y = g.node("QLinearConcat", *g.scale(0.04, 30), g.raw([1, 3, 4, 4]), *g.scale(0.03), g.raw([1, 5, 4, 4]), *g.scale(0.02), domain="com.microsoft", axis=1)
        g.save(out, f"QLinearConcat-{kind}", y)
        g = Graph(kind)
        w = g.constant(RNG.integers(-127, 128, [10, 33]).astype(np.int8))
        y = g.node("QGemm", g.raw([1, 33]), *g.scale(0.02), w, g.constant(np.float32(0.005)), g.constant(np.int8(0)), g.constant(RNG.integers(-999, 999, 10).astype(np.int32)), *g.scale(0.1), domain="com.microsoft", transB=1)
        g.save(out, f"QGemm-{kind}", y)


def main() -> None:
    out = Path(sys.argv[1])
    for make in (convolutions, products, elementwise, pools_and_moves, floats, qoperators):
        make(out)


if __name__ == "__main__":
    main()
