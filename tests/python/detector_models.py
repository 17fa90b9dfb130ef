"""Detectors with random weights, in the form in which each family is exported: python detector_models.py DIR.

The picture is averaged over the cells of each stride and goes through one convolution: what comes out depends on the picture, has the
family's shapes and the family's own last operators.
"""

import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from detections import V3

random = np.random.default_rng(7)


class Graph:
    def __init__(self, width: int, height: int, last: bool = False):
        self.width, self.height, self.last = width, height, last
        self.nodes, self.constants, self.count = [], [], 0

    def const(self, value) -> str:
        self.count += 1
        name = f"c{self.count}"
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def add(self, op: str, *inputs: str, n: int = 1, name: str = "", **attributes):
        self.count += 1
        outputs = [name or f"t{self.count}_{i}" for i in range(n)]
        self.nodes.append(helper.make_node(op, list(inputs), outputs, name=outputs[0], **attributes))
        return outputs[0] if n == 1 else outputs

    def head(self, cells: int | tuple[int, int], channels: int, spread: float = 1.2, more=0) -> str:
        """[1, channels, h, w] for that many cells; `more` of a channel is on top of what is random. Not spread so wide that many sigmoids are 1: equal scores have no order."""
        w, h = (cells, cells) if isinstance(cells, int) else cells
        x, y = self.width // w, self.height // h
        picture = self.add("Transpose", "picture", perm=[0, 3, 1, 2]) if self.last else "picture"
        pooled = self.add("AveragePool", picture, kernel_shape=[y, x], strides=[y, x])
        # What is left over at the edge where the cells do not fill the picture.
        pooled = self.add("Slice", pooled, self.const([0, 0]), self.const([h, w]), self.const([2, 3]))
        weights = random.normal(0, spread, (channels, 3, 1, 1)).astype(np.float32)
        bias = (random.normal(-spread / 3, spread, channels) + more).astype(np.float32)
        return self.add("Conv", pooled, self.const(weights), self.const(bias))

    def reshape(self, tensor: str, shape: list[int]) -> str:
        return self.add("Reshape", tensor, self.const(np.array(shape)))

    def save(self, path: Path, outputs: dict[str, list[int]], first: tuple[str, list[int]] | None = None, more_inputs=()) -> None:
        """The `first` input is the picture, unless it is said."""
        shape = [1, self.height, self.width, 3] if self.last else [1, 3, self.height, self.width]
        name, shape = first or ("picture", shape)
        inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape), *more_inputs]
        infos = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in outputs.items()]
        graph = helper.make_graph(self.nodes, "g", inputs, infos, self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
        onnx.checker.check_model(model)
        onnx.save(model, path)


def grid(w: int, h: int) -> np.ndarray:
    """[1, 2, h, w]"""
    return np.stack(np.meshgrid(np.arange(w), np.arange(h)))[None].astype(np.float32)


def yolov5(path: Path, classes: int = 7, strides=(8, 16, 32)) -> None:
    g, rows, n = Graph(224, 160), [], 0
    for stride, anchors in zip(strides, [V3[0], *V3] if strides[0] == 4 else [*V3, V3[2]]):
        w, h = g.width // stride, g.height // stride
        n += 3 * w * h
        head = g.reshape(g.head((w, h), 3 * (5 + classes)), [1, 3, 5 + classes, h, w])
        values = g.add("Sigmoid", g.add("Transpose", head, perm=[0, 1, 3, 4, 2]))
        xy, wh, rest = g.add("Split", values, g.const([2, 2, 1 + classes]), n=3, axis=4)
        cells = grid(w, h).transpose(0, 2, 3, 1)[:, None] - np.float32(0.5)
        xy = g.add("Mul", g.add("Add", g.add("Mul", xy, g.const(np.float32(2))), g.const(cells)), g.const(np.float32(stride)))
        anchors = np.array(anchors, np.float32).reshape(1, 3, 1, 1, 2)
        wh = g.add("Mul", g.add("Pow", g.add("Mul", wh, g.const(np.float32(2))), g.const(np.float32(2))), g.const(anchors))
        rows.append(g.reshape(g.add("Concat", xy, wh, rest, axis=4), [1, -1, 5 + classes]))
    g.add("Concat", *rows, name="output0", axis=1)
    g.save(path, {"output0": [1, n, 5 + classes]})


def decoded(g: Graph, classes: int, strides=(8, 16, 32)) -> tuple[str, str, int]:
    """Centres and sizes [1, 4, N] in pixels, classes [1, classes, N]."""
    boxes, scores, n = [], [], 0
    for stride in strides:
        w, h = g.width // stride, g.height // stride
        n += w * h
        values = g.reshape(g.add("Sigmoid", g.head((w, h), 4 + classes, 0.7)), [1, 4 + classes, w * h])
        xy, wh, rest = g.add("Split", values, g.const([2, 2, classes]), n=3, axis=1)
        xy = g.add("Mul", g.add("Add", xy, g.const(grid(w, h).reshape(1, 2, -1))), g.const(np.float32(stride)))
        wh = g.add("Mul", wh, g.const(np.float32(5 * stride)))
        boxes.append(g.add("Concat", xy, wh, axis=1))
        scores.append(rest)
    return g.add("Concat", *boxes, axis=2), g.add("Concat", *scores, axis=2), n


def yolov8(path: Path, classes: int = 80, strides=(8, 16, 32), step: float | None = None) -> None:
    """With a `step`, boxes and scores go through one quantizer, as onnxruntime's quantize_static has it of a whole graph."""
    g = Graph(224, 160)
    boxes, scores, n = decoded(g, classes, strides)
    if step is None:
        g.add("Concat", boxes, scores, name="output0", axis=1)
    else:
        quantizer = g.const(np.float32(step)), g.const(np.uint8(0))
        quantized = g.add("QuantizeLinear", g.add("Concat", boxes, scores, axis=1), *quantizer)
        g.add("DequantizeLinear", quantized, *quantizer, name="output0")
    g.save(path, {"output0": [1, 4 + classes, n]})


def yolov10(path: Path, classes: int = 80, most: int = 300) -> None:
    """The best boxes are chosen in the graph, with TopK and GatherElements as in its export."""
    g = Graph(224, 160)
    boxes, scores, _ = decoded(g, classes)
    xy, wh = g.add("Split", g.add("Transpose", boxes, perm=[0, 2, 1]), g.const([2, 2]), n=2, axis=2)
    half = g.add("Mul", wh, g.const(np.float32(0.5)))
    boxes = g.add("Concat", g.add("Sub", xy, half), g.add("Add", xy, half), axis=2)
    scores = g.add("Transpose", scores, perm=[0, 2, 1])
    best = g.add("ReduceMax", scores, axes=[2], keepdims=0)
    best, index = g.add("TopK", best, g.const(np.array([most])), n=2, axis=1)
    column = g.add("Unsqueeze", index, g.const(np.array([2])))
    boxes = g.add("GatherElements", boxes, g.add("Tile", column, g.const(np.array([1, 1, 4]))), axis=1)
    scores = g.add("GatherElements", scores, g.add("Tile", column, g.const(np.array([1, 1, classes]))), axis=1)
    cls = g.add("Cast", g.add("ArgMax", scores, axis=2, keepdims=1), to=TensorProto.FLOAT)
    best = g.add("Unsqueeze", best, g.const(np.array([2])))
    g.add("Concat", boxes, best, cls, name="output0", axis=2)
    g.save(path, {"output0": [1, most, 6]})


def yolov8_nms(path: Path, classes: int = 80, most: int = 300, sure: float = 0.25, iou: float = 0.45) -> None:
    """As Ultralytics writes it with nms=True: boxes that are sure enough are gathered, how many depends on the picture, and a suppression of one
    class chooses among them, each class moved to a place of its own."""
    g = Graph(224, 160)
    boxes, scores, n = decoded(g, classes)
    g.add("Concat", boxes, scores, name="predictions", axis=1)
    rows = g.add("Transpose", "predictions", perm=[0, 2, 1])
    boxes, scores = g.add("Split", rows, g.const([4, classes]), n=2, axis=2)
    score, label = g.add("ReduceMax", scores, axes=[2], keepdims=0), g.add("ArgMax", scores, axis=2, keepdims=0)
    boxes, score, label = (g.add("Gather", t, g.const(0), axis=0) for t in (boxes, score, label))
    g.add("NonZero", g.add("Greater", score, g.const(np.float32(sure))), name="sure")
    at = g.add("Transpose", "sure", perm=[1, 0])
    boxes, score, label = (g.add("GatherND", t, at) for t in (boxes, score, label))
    label = g.add("Unsqueeze", g.add("Cast", label, to=TensorProto.FLOAT), g.const(np.array([1])))
    xy, wh = g.add("Split", boxes, g.const([2, 2]), n=2, axis=1)
    half = g.add("Mul", wh, g.const(np.float32(0.5)))
    boxes = g.add("Concat", g.add("Sub", xy, half), g.add("Add", xy, half), axis=1)
    moved = g.add("Add", boxes, g.add("Mul", label, g.const(np.float32(400))))
    limits = g.const(np.array([2**62])), g.const(np.array([iou], np.float32))
    g.add("NonMaxSuppression", g.add("Unsqueeze", moved, g.const(np.array([0]))), g.add("Unsqueeze", score, g.const(np.array([0, 1]))), *limits, name="chosen")
    kept = g.add("Squeeze", g.add("Gather", "chosen", g.const(np.array([2])), axis=1), g.const(np.array([1])))
    kept = g.add("Slice", kept, g.const(np.array([0])), g.const(np.array([most])), g.const(np.array([0])))
    found = g.add("Concat", boxes, g.add("Unsqueeze", score, g.const(np.array([1]))), label, axis=1)
    found = g.add("Gather", found, kept, axis=0)
    short = g.add("Sub", g.const(np.array([most])), g.add("Slice", g.add("Shape", found), g.const(np.array([0])), g.const(np.array([1]))))
    padded = g.add("Pad", found, g.add("Concat", g.const(np.array([0, 0])), short, g.const(np.array([0])), axis=0))
    g.add("Unsqueeze", padded, g.const(np.array([0])), name="output0")
    g.save(path, {"output0": [1, most, 6]})


def raw_heads(path: Path, strides=(8, 16, 32), classes: int = 80, last: bool = False, goes_on: bool = False) -> None:
    g = Graph(224, 160, last)
    outputs = {}
    # The coarsest first, as the networks give them.
    for stride in reversed(strides):
        w, h = g.width // stride, g.height // stride
        head, name = g.head((w, h), 3 * (5 + classes)), f"head{stride}"
        if last:
            g.add("Reshape", g.add("Transpose", head, perm=[0, 2, 3, 1]), g.const(np.array([1, h, w, 3, 5 + classes])), name=name)
            outputs[name] = [1, h, w, 3, 5 + classes]
        else:
            g.add("Identity", head, name=name)
            outputs[name] = [1, 3 * (5 + classes), h, w]
    if not goes_on:
        return g.save(path, outputs)
    # A second input, and a suppression that depends on data, as in the ONNX Model Zoo.
    flat = [g.add("Transpose", g.reshape(o, [1, 85, -1]), perm=[0, 2, 1]) for o in outputs]
    rows = g.add("Concat", *flat, axis=1)
    boxes, scores = g.add("Split", rows, g.const([4, 81]), n=2, axis=2)
    boxes = g.add("Mul", boxes, "image_shape")
    g.add("NonMaxSuppression", boxes, g.add("Transpose", scores, perm=[0, 2, 1]), g.const(np.array([20])), name="chosen")
    g.add("Cast", "chosen", name="indices", to=TensorProto.FLOAT)
    shape = helper.make_tensor_value_info("image_shape", TensorProto.FLOAT, [1, 1, 4])
    g.save(path, {"indices": ["n", 3]}, more_inputs=[shape])


def ssd(path: Path, classes: int = 81) -> None:
    g, locations, scores = Graph(1200, 1200), [], []
    for cells, shapes in [(50, 4), (25, 6), (13, 6), (7, 6), (3, 4), (3, 4)]:
        locations.append(g.reshape(g.head(cells, 4 * shapes), [1, 4, -1]))
        scores.append(g.reshape(g.head(cells, classes * shapes), [1, classes, -1]))
    g.add("Concat", *locations, name="locations", axis=2)
    g.add("Concat", *scores, name="classes", axis=2)
    g.save(path, {"locations": [1, 4, 15130], "classes": [1, classes, 15130]})


def bundle(folder: Path, detect: str) -> Path:
    folder.mkdir()
    (folder / "model.toml").write_text(f"tasks = ['detect']\n[detect]\n{detect}\n")
    return folder


def surer(classes: int) -> np.ndarray:
    """A logit for each class, COCO's numbers: most of what is found is a person."""
    return np.where(np.arange(classes) == 1, 0, -5)


def pyramid(g: Graph, strides, heads) -> dict[str, list[int]]:
    """For each level, the coarsest first, the heads: name, values a cell, spread, more."""
    outputs = {}
    for stride in reversed(strides):
        w, h = -(-g.width // stride), -(-g.height // stride)
        for name, values, spread, more in heads:
            g.add("Identity", g.head((w, h), values, spread, more), name=f"{name}_{stride}")
            outputs[f"{name}_{stride}"] = [1, values, h, w]
    return outputs


def retinanet(folder: Path, classes: int = 91) -> None:
    """What `python -m ocellus_models export` writes: nine anchors a cell."""
    g = Graph(224, 160)
    outputs = pyramid(g, (8, 16, 32, 64, 128), [("bbox_regression", 36, 0.2, 0), ("cls_logits", 9 * classes, 0.8, np.tile(surer(classes), 9))])
    g.save(bundle(folder, "family = 'retinanet'") / "model.onnx", outputs)


def faster_rcnn(folder: Path, classes: int = 91, channels: int = 8, regions: int = 16) -> None:
    """What `python -m ocellus_models export` writes: three anchors a cell, the feature maps, and the box head beside it."""
    g = Graph(224, 160)
    outputs = pyramid(g, (4, 8, 16, 32, 64), [("bbox_pred", 12, 0.2, 0), ("objectness", 3, 1.0, 0)])
    for stride in (4, 8, 16, 32):
        w, h = g.width // stride, g.height // stride
        g.add("Identity", g.head((w, h), channels), name=f"feature_{stride}")
        outputs[f"feature_{stride}"] = [1, channels, h, w]
    bundle(folder, "family = 'faster_rcnn'\nbox_head = 'box_head.onnx'\nproposals = 200")
    g.save(folder / "model.onnx", outputs)
    g = Graph(7, 7)
    pooled = g.add("Flatten", g.add("GlobalAveragePool", "regions"))
    outputs = {}
    for name, values, spread, more in [("class_logits", classes, 0.8, surer(classes)), ("box_regression", 4 * classes, 0.3, 0)]:
        weights = random.normal(0, spread, (channels, values)).astype(np.float32)
        bias = (random.normal(0, spread, values) + more).astype(np.float32)
        g.add("Gemm", pooled, g.const(weights), g.const(bias), name=name)
        outputs[name] = [regions, values]
    g.save(folder / "box_head.onnx", outputs, ("regions", [regions, channels, 7, 7]))


def main() -> None:
    out = Path(sys.argv[1])
    yolov5(out / "yolov5.onnx")
    yolov8(out / "yolov8.onnx")
    for name, strides in [("tiny", (16, 32)), ("p2", (4, 8, 16, 32)), ("p6", (8, 16, 32, 64))]:
        yolov5(out / f"yolov5-{name}.onnx", strides=strides)
        yolov8(out / f"yolov8-{name}.onnx", strides=strides)
    yolov8(out / "yolov8-quantized.onnx", step=1.25)
    yolov8_nms(out / "yolov8-nms.onnx")
    retinanet(out / "retinanet")
    faster_rcnn(out / "faster_rcnn")
    yolov10(out / "yolov10.onnx")
    raw_heads(out / "yolov3.onnx")
    raw_heads(out / "yolov3-tiny.onnx", (16, 32))
    raw_heads(out / "yolov4.onnx", last=True)
    raw_heads(out / "yolov4-tiny.onnx", (16, 32))
    raw_heads(out / "yolov3-goes-on.onnx", goes_on=True)
    ssd(out / "ssd.onnx")


if __name__ == "__main__":
    main()
