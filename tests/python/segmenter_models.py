"""Segmenters with random weights, in the form in which torchvision's are exported: python segmenter_models.py DIR.

A small residual backbone with dilated convolutions, then FCN's head (`fcn.onnx`) or DeepLabV3's (`deeplab.onnx`): 21 scores, made as large as the picture
by a bilinear Resize. `argmax.onnx` goes on to class numbers, and has a second output, as the auxiliary head of training gives one.
"""

import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CLASSES = 21
WIDTH, HEIGHT = 120, 88
random = np.random.default_rng(11)


class Graph:
    def __init__(self):
        self.nodes, self.constants, self.count = [], [], 0

    def const(self, value) -> str:
        self.count += 1
        self.constants.append(numpy_helper.from_array(np.asarray(value), f"c{self.count}"))
        return f"c{self.count}"

    def add(self, op: str, *inputs: str, **attributes) -> str:
        self.count += 1
        self.nodes.append(helper.make_node(op, list(inputs), [f"t{self.count}"], **attributes))
        return f"t{self.count}"

    def conv(self, x: str, channels: tuple[int, int], size: int = 1, stride: int = 1, dilation: int = 1, relu: bool = True) -> str:
        fan = channels[0] * size * size
        weights = random.normal(0, (2 / fan) ** 0.5, (channels[1], channels[0], size, size)).astype(np.float32)
        bias = random.normal(0, 0.1, channels[1]).astype(np.float32)
        pad = dilation * (size // 2)
        x = self.add("Conv", x, self.const(weights), self.const(bias), strides=[stride] * 2, dilations=[dilation] * 2, pads=[pad] * 4)
        return self.add("Relu", x) if relu else x

    def block(self, x: str, channels: tuple[int, int], stride: int, dilation: int) -> str:
        way = self.conv(x, (channels[0], 16))
        way = self.conv(way, (16, 16), 3, stride, dilation)
        way = self.conv(way, (16, channels[1]), relu=False)
        return self.add("Relu", self.add("Add", way, self.conv(x, channels, stride=stride, relu=False)))

    def resize(self, x: str, channels: int, width: int, height: int) -> str:
        sizes = self.const(np.array([1, channels, height, width]))
        return self.add("Resize", x, "", "", sizes, coordinate_transformation_mode="half_pixel", mode="linear")

    def save(self, path: Path, outputs: list[tuple[str, int, list[int]]]) -> None:
        picture = helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, HEIGHT, WIDTH])
        infos = [helper.make_tensor_value_info(*o) for o in outputs]
        graph = helper.make_graph(self.nodes, "g", [picture], infos, self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
        onnx.checker.check_model(model)
        onnx.save(model, path)


def segmenter(form: str) -> tuple[Graph, str, str]:
    """The graph, the scores of each pixel, those of the backbone's cells."""
    g = Graph()
    x = g.conv("input", (3, 16), 7, 2)
    x = g.add("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    x = g.block(x, (16, 32), 1, 1)
    x = g.block(x, (32, 48), 2, 1)
    x = g.block(x, (48, 64), 1, 2)
    width, height = WIDTH // 8, HEIGHT // 8
    if form == "deeplab":
        ways = [g.conv(x, (64, 16))] + [g.conv(x, (64, 16), 3, 1, d) for d in (2, 4, 6)]
        pooled = g.conv(g.add("GlobalAveragePool", x), (64, 16))
        x = g.add("Concat", *ways, g.resize(pooled, 16, width, height), axis=1)
        x = g.conv(x, (80, 64))
    x = g.conv(x, (64, 32), 3)
    cells = g.conv(x, (32, CLASSES), relu=False)
    return g, g.resize(cells, CLASSES, WIDTH, HEIGHT), cells


def main() -> None:
    out = Path(sys.argv[1])
    scores = [1, CLASSES, HEIGHT, WIDTH]
    for form in ("fcn", "deeplab"):
        g, pixels, _ = segmenter(form)
        g.save(out / f"{form}.onnx", [(pixels, TensorProto.FLOAT, scores)])
    g, pixels, cells = segmenter("fcn")
    classes = g.add("ArgMax", pixels, axis=1, keepdims=0)
    aux = g.add("Sigmoid", cells)
    g.save(out / "argmax.onnx", [(classes, TensorProto.INT64, [1, HEIGHT, WIDTH]), (aux, TensorProto.FLOAT, [1, CLASSES, HEIGHT // 8, WIDTH // 8])])


if __name__ == "__main__":
    main()
