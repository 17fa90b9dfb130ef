"""SSD with ResNet-34 and random weights, node by node as MLPerf's PyTorch network became the ONNX Model Zoo's `ssd-12`, and its int8 forms.

python ssd_resnet34.py DIR PICTURE SIDE WIDTH NAME…: for an input of SIDE×SIDE pixels (1200), with WIDTH channels in the first stage (64); by PICTURE the
int8 forms are calibrated. DIR gets NAME.onnx: `ssd`, `ssd-int8` with QLinearConv and QLinearAdd as `ssd-12-int8` has them, `ssd-qdq`.

What is known of that graph: `image` [1, 3, 1200, 1200] in, `bboxes`, `labels` and `scores` out; batch normalization behind the backbone's convolutions;
heads brought into shape by what `Shape` says; decoding, softmax and NonMaxSuppression (at most 200 a class, IoU 0.5, score 0.05) in the
graph, and behind that the best 200 by TopK. In the int8 form the convolutions, additions and pooling are quantized, the end is in float.
"""

import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from PIL import Image

from detections import ssd_defaults
from detector_models import Graph

CLASSES = 81
SHAPES = [4, 6, 6, 6, 4, 4]
"""Default boxes of a cell, grid by grid."""
END = 2**63 - 1


class Exported(Graph):
    """Writes a graph down as PyTorch's exporter of 2019 did: constants are nodes, lengths are computed."""

    def __init__(self, side: int):
        super().__init__(side, side)
        self.random = np.random.default_rng(34)
        self.lengths = {"image": side}

    def constant(self, value) -> str:
        return self.add("Constant", value=numpy_helper.from_array(np.asarray(value)))

    def conv(self, x: str, inputs: int, outputs: int, kernel: int, stride: int = 1, pad: int = 0, spread: float = 2**0.5, bias=None) -> str:
        weights = self.random.normal(0, spread / (inputs * kernel**2) ** 0.5, (outputs, inputs, kernel, kernel))
        more = [] if bias is None else [self.const(np.asarray(bias, np.float32))]
        shape = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [pad] * 4, "dilations": [1, 1], "group": 1}
        y = self.add("Conv", x, self.const(weights.astype(np.float32)), *more, **shape)
        self.lengths[y] = (self.lengths[x] + 2 * pad - kernel) // stride + 1
        return y

    def same(self, op: str, *inputs: str, **attributes) -> str:
        y = self.add(op, *inputs, **attributes)
        self.lengths[y] = self.lengths[inputs[0]]
        return y

    def norm(self, x: str, channels: int, gain: float = 1) -> str:
        draw = [self.random.uniform(0.8, 1.2, channels) * gain, self.random.normal(0, 0.1, channels)]
        draw += [self.random.normal(0, 0.1, channels), self.random.uniform(0.7, 1.4, channels)]
        return self.same("BatchNormalization", x, *(self.const(d.astype(np.float32)) for d in draw), epsilon=1e-5, momentum=0.9)

    def block(self, x: str, inputs: int, outputs: int, stride: int) -> str:
        y = self.same("Relu", self.norm(self.conv(x, inputs, outputs, 3, stride, 1), outputs))
        # A residual adds to the spread: not so much that thirteen of them run away.
        y = self.norm(self.conv(y, outputs, outputs, 3, 1, 1), outputs, 0.4)
        if inputs != outputs:
            x = self.norm(self.conv(x, inputs, outputs, 1, stride), outputs)
        return self.same("Relu", self.same("Add", y, x))

    def backbone(self, w: int) -> str:
        x = self.same("Relu", self.norm(self.conv("image", 3, w, 7, 2, 3), w))
        length = (self.lengths[x] - 1) // 2 + 1
        x = self.add("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
        self.lengths[x] = length
        # The third stage keeps its size, the fourth is not there.
        for blocks, inputs, outputs, stride in [(3, w, w, 1), (4, w, 2 * w, 2), (6, 2 * w, 4 * w, 1)]:
            for i in range(blocks):
                x = self.block(x, outputs if i else inputs, outputs, 1 if i else stride)
        return x

    def step(self, x: str, inputs: int, between: int, outputs: int, stride: int, pad: int) -> str:
        """To the next coarser grid."""
        bias = [self.random.normal(0, 0.1, n) for n in (between, outputs)]
        x = self.same("Relu", self.conv(x, inputs, between, 1, bias=bias[0]))
        return self.same("Relu", self.conv(x, between, outputs, 3, stride, pad, bias=bias[1]))

    def view(self, x: str, values: int) -> str:
        """[1, values, boxes]"""
        batch = self.add("Gather", self.add("Shape", x), self.constant(0), axis=0)
        shape = [self.add("Unsqueeze", d, axes=[0]) for d in (batch, self.constant(values), self.constant(-1))]
        return self.add("Reshape", x, self.add("Concat", *shape, axis=0))

    def slice(self, x: str, axis: int, start: int = 0, end: int = END) -> str:
        return self.add("Slice", x, *(self.constant([v]) for v in (start, end, axis, 1)))

    def last_axis(self, x: str, start: int, end: int) -> str:
        return self.slice(self.slice(self.slice(x, 0), 1), 2, start, end)

    def decoded(self, locations: str, grids: list[int]) -> str:
        """Corners in 0 to 1."""
        defaults = ssd_defaults(self.width, grids)[None].astype(np.float32)
        xy = self.add("Mul", self.last_axis(locations, 0, 2), self.constant(np.float32(0.1)))
        wh = self.add("Mul", self.last_axis(locations, 2, END), self.constant(np.float32(0.2)))
        xy = self.add("Add", self.add("Mul", xy, self.const(defaults[:, :, 2:])), self.const(defaults[:, :, :2]))
        wh = self.add("Mul", self.add("Exp", wh), self.const(defaults[:, :, 2:]))
        sides = []
        for op in ("Sub", "Add"):
            for i in range(2):
                at, size = (self.add("Squeeze", self.last_axis(t, i, i + 1), axes=[2]) for t in (xy, wh))
                half = self.add("Mul", size, self.constant(np.float32(0.5)))
                sides.append(self.add(op, at, half))
        return self.add("Concat", *(self.add("Unsqueeze", s, axes=[2]) for s in sides), axis=2)

    def filled(self, value) -> str:
        return self.add("ConstantOfShape", self.constant([1]), value=numpy_helper.from_array(np.array([value])))

    def suppressed(self, boxes: str, scores: str, most: int = 200) -> None:
        """`bboxes`, `labels` and `scores`: of no fixed length."""
        limits = self.filled(most), self.filled(np.float32(0.5)), self.filled(np.float32(0.05))
        chosen = self.add("NonMaxSuppression", boxes, scores, *limits)
        labels, places = (self.add("Gather", self.slice(chosen, 0), self.constant(i), axis=1) for i in (1, 2))
        flat = self.add("Reshape", scores, self.constant([-1]))
        n = self.add("Gather", self.add("Shape", scores), self.constant(2), axis=0)
        place = self.add("Add", self.add("Mul", labels, n), places)
        values = self.add("Gather", flat, self.add("Cast", place, to=TensorProto.INT64), axis=0)
        found = self.add("Unsqueeze", self.add("Gather", self.add("Shape", values), self.constant(0), axis=0), axes=[0])
        k = self.add("Cast", self.add("Concat", self.constant([most]), found, axis=0), to=TensorProto.INT32)
        k = self.add("Cast", self.add("ReduceMin", k, keepdims=0), to=TensorProto.INT64)
        _, best = self.add("TopK", values, self.add("Unsqueeze", k, axes=[0]), n=2, axis=0)
        at = self.add("Cast", self.add("Gather", places, best, axis=0), to=TensorProto.INT64)
        boxes = self.add("Gather", self.slice(self.add("Squeeze", boxes, axes=[0]), 1), at, axis=0)
        self.add("Unsqueeze", boxes, axes=[0], name="bboxes")
        label = self.add("Unsqueeze", self.add("Gather", labels, best, axis=0), axes=[0])
        self.add("Add", label, self.constant(1), name="labels")
        self.add("Unsqueeze", self.add("Gather", values, best, axis=0), axes=[0], name="scores")

    def model(self) -> onnx.ModelProto:
        image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, self.height, self.width])
        outputs = [("bboxes", TensorProto.FLOAT, [4]), ("labels", TensorProto.INT64, []), ("scores", TensorProto.FLOAT, [])]
        outputs = [helper.make_tensor_value_info(name, kind, [1, "nbox", *rest]) for name, kind, rest in outputs]
        graph = helper.make_graph(self.nodes, "torch-jit-export", [image], outputs, self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 12)], ir_version=7)
        onnx.checker.check_model(model)
        return model


def network(side: int, width: int) -> tuple[onnx.ModelProto, list[str]]:
    """The graph, and the names of the additions of its end."""
    g = Exported(side)
    channels = [4 * width, 8 * width, 8 * width, 4 * width, 4 * width, 4 * width]
    between, paddings = [4 * width, 4 * width, 2 * width, 2 * width, 2 * width], [(2, 1), (2, 1), (2, 1), (2, 0), (1, 0)]
    maps = [g.backbone(width)]
    for i, (stride, pad) in enumerate(paddings):
        maps.append(g.step(maps[-1], channels[i], between[i], channels[i + 1], stride, pad))
    locations, classes, grids = [], [], []
    for x, inputs, shapes in zip(maps, channels, SHAPES, strict=True):
        # The background is the surest; of the classes some boxes have one, few of them two.
        background = np.repeat(np.r_[3.0, np.zeros(CLASSES - 1)], shapes)
        location = g.conv(x, inputs, 4 * shapes, 3, 3, 1, 0.5, g.random.normal(0, 0.5, 4 * shapes))
        grids.append(g.lengths[location])
        locations.append(g.view(location, 4))
        logits = g.conv(x, inputs, CLASSES * shapes, 3, 3, 1, 0.4, background + g.random.normal(0, 0.5, CLASSES * shapes))
        classes.append(g.view(logits, CLASSES))
    locations, classes = g.add("Concat", *locations, axis=2), g.add("Concat", *classes, axis=2)
    locations, classes = (g.add("Transpose", t, perm=[0, 2, 1]) for t in (locations, classes))
    network = len(g.nodes)
    boxes = g.decoded(locations, grids)
    scores = g.add("Transpose", g.add("Softmax", classes, axis=2), perm=[0, 2, 1])
    g.suppressed(boxes, g.slice(g.slice(g.slice(scores, 0), 1, 1), 2))
    return g.model(), [n.name for n in g.nodes[network:] if n.op_type == "Add"]


class Once(CalibrationDataReader):
    def __init__(self, feed: dict):
        self.feed = feed

    def get_next(self) -> dict | None:
        feed, self.feed = self.feed, None
        return feed


def quantize(model: Path, keep: list[str], out: Path, form: QuantFormat, picture: np.ndarray) -> None:
    """As `ssd-12-int8` was made: batch normalization folded by onnxruntime, then all of the network quantized but these nodes."""
    folded = out.with_suffix(".folded.onnx")
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(folded)
    ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    quantize_static(
        str(folded),
        str(out),
        Once({"image": picture}),
        quant_format=form,
        op_types_to_quantize=["Conv", "Relu", "Add", "MaxPool"],
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        # The operator set's DequantizeLinear has one scale a tensor, QLinearConv one a channel.
        per_channel=form == QuantFormat.QOperator,
        nodes_to_exclude=keep,
    )
    folded.unlink()


def main() -> None:
    out, side, width = Path(sys.argv[1]), int(sys.argv[3]), int(sys.argv[4])
    pixels = np.asarray(Image.open(sys.argv[2]).convert("RGB").resize((side, side), Image.Resampling.BILINEAR)) / 255
    picture = ((pixels - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]).transpose(2, 0, 1)[None].astype(np.float32)
    whole = out / "ssd.onnx"
    model, end = network(side, width)
    onnx.save(model, whole)
    for name, form in [("ssd-int8", QuantFormat.QOperator), ("ssd-qdq", QuantFormat.QDQ)]:
        if name in sys.argv[5:]:
            quantize(whole, end, out / f"{name}.onnx", form, picture)


if __name__ == "__main__":
    main()
