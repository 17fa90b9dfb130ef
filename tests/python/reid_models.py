"""A re-identification network with random weights, in the form of the usual ResNet-50 for persons, and its int8 form.

python reid_models.py DIR WIDTH PICTURES: with WIDTH channels in the first stage (64), so that the embedding has 32 · WIDTH elements. DIR gets
`reid.onnx` and `reid-int8.onnx` (QDQ). The input is 256 pixels high and 128 wide, the last stage keeps its size, batch normalization is folded into
the convolutions but for the last one, whose output is the embedding: its mean and variance are those of crops of PICTURES, so that the embeddings of
two crops point into different directions.
"""

import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from PIL import Image

from detector_models import Graph
from reid import HEIGHT, WIDTH, tensor

random = np.random.default_rng(50)


class Network(Graph):
    def conv(self, x: str, inputs: int, outputs: int, kernel: int, stride: int = 1, gain: float = 2**0.5) -> str:
        weights = random.normal(0, gain / (inputs * kernel**2) ** 0.5, (outputs, inputs, kernel, kernel))
        bias = random.normal(0, 0.1, outputs)
        constants = (self.const(v.astype(np.float32)) for v in (weights, bias))
        return self.add("Conv", x, *constants, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[kernel // 2] * 4)

    def bottleneck(self, x: str, inputs: int, width: int, stride: int) -> str:
        y = self.add("Relu", self.conv(x, inputs, width, 1))
        y = self.add("Relu", self.conv(y, width, width, 3, stride))
        # A residual adds to the spread: not so much that sixteen of them run away.
        y = self.conv(y, width, 4 * width, 1, gain=0.5)
        if inputs != 4 * width:
            x = self.conv(x, inputs, 4 * width, 1, stride, gain=1)
        return self.add("Relu", self.add("Add", y, x))

    def backbone(self, width: int) -> int:
        """`pooled`, of as many elements as are returned."""
        x = self.add("Relu", self.conv("picture", 3, width, 7, 2))
        x = self.add("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
        inputs = width
        for blocks, stride in [(3, 1), (4, 2), (6, 2), (3, 1)]:
            for block in range(blocks):
                x = self.bottleneck(x, inputs, width, 1 if block else stride)
                inputs = 4 * width
            width *= 2
        self.add("Flatten", self.add("GlobalAveragePool", x), name="pooled")
        return inputs


def crops(pictures: list[Path], of_each: int = 4) -> list[np.ndarray]:
    tensors = []
    for path in pictures:
        picture = Image.open(path).convert("RGB")
        for _ in range(of_each):
            w = random.integers(24, picture.width // 2)
            h = min(2 * w, picture.height)
            x, y = random.integers(0, picture.width - w + 1), random.integers(0, picture.height - h + 1)
            tensors.append(tensor(picture, [x, y, x + w, y + h]))
    return tensors


class Reader(CalibrationDataReader):
    def __init__(self, tensors: list[np.ndarray]):
        self.feeds = iter({"picture": t} for t in tensors)

    def get_next(self) -> dict | None:
        return next(self.feeds, None)


def main() -> None:
    out, width, pictures = Path(sys.argv[1]), int(sys.argv[2]), sorted(Path(sys.argv[3]).iterdir())
    tensors, whole = crops(pictures), out / "reid.onnx"
    g = Network(WIDTH, HEIGHT)
    n = g.backbone(width)
    g.save(whole, {"pooled": [1, n]})
    session = ort.InferenceSession(whole, providers=["CPUExecutionProvider"])
    pooled = np.concatenate([session.run(None, {"picture": t})[0] for t in tensors])
    constants = (np.ones(n), np.zeros(n), pooled.mean(0), pooled.var(0))
    g.add("BatchNormalization", "pooled", *(g.const(c.astype(np.float32)) for c in constants), name="embedding", epsilon=1e-5)
    g.save(whole, {"embedding": [1, n]})
    types = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
    quantize_static(whole, out / "reid-int8.onnx", Reader(tensors[::2]), quant_format=QuantFormat.QDQ, per_channel=True, **types)


if __name__ == "__main__":
    main()
