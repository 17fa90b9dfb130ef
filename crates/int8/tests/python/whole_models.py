"""Real pictures through a real model, by onnxruntime: python whole_models.py MODEL DATA OUT

Leaves `in` and `out` in OUT: the input tensors of all pictures one after the other, and the outputs, each picture's in the graph's order.
"""

import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper
from PIL import Image

from cases import session, unshared

IMAGES = 100
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)


def imagenet(data: Path):
    for path in sorted((data / "images/imagenet").iterdir()):
        picture = Image.open(path).convert("RGB")
        scale = 256 / min(picture.size)
        picture = picture.resize([round(s * scale) for s in picture.size], Image.Resampling.BILINEAR)
        left, top = (picture.width - 224) // 2, (picture.height - 224) // 2
        yield picture.crop((left, top, left + 224, top + 224))


def cifar(data: Path):
    test = np.load(data / "cifar10/test.npz")
    jpeg, offset = test["jpeg"], test["offset"]
    for start, end in zip(offset[:-1], offset[1:]):
        yield Image.open(BytesIO(jpeg[start:end].tobytes())).convert("RGB")


def coco(data: Path, side: int):
    for path in sorted((data / "images/coco/images").iterdir()) + sorted((data / "images/imagenet").iterdir()):
        yield Image.open(path).convert("RGB").resize((side, side), Image.Resampling.BILINEAR)


def planes(picture) -> np.ndarray:
    return np.asarray(picture, np.float32).transpose(2, 0, 1)


def normalized(picture) -> np.ndarray:
    return ((np.asarray(picture, np.float32) / 255 - MEAN) / STD).transpose(2, 0, 1)


def inputs(name: str, data: Path):
    """Prepared as each model's maker says."""
    if name.startswith(("resnet18", "resnet50")):
        return (normalized(p) for p in imagenet(data))
    if name.startswith("resnet20"):
        return (normalized(p) for p in cifar(data))
    if name.startswith("resnet8"):
        return (np.asarray(p, np.int16) - 128 for p in cifar(data))
    if name.startswith("person"):
        return (np.asarray(p, np.int16) - 128 for p in coco(data, 96))
    if name.startswith("yolox"):
        return (planes(p)[::-1] for p in coco(data, 416))
    if name.startswith("deeplab"):
        return (np.asarray(p) for p in coco(data, 513))
    raise SystemExit(f"nothing is known of the pictures of {name}")


def on_unsigned(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same numbers with activations as u8 where they were s8, inputs and outputs too, each zero point 128 higher: only these does
    onnxruntime compute on integers on x86-64, without a float's rounding on the way."""
    model = unshared(model)
    graph = model.graph
    constants = {i.name: i for i in graph.initializer}
    for value in [*graph.input, *graph.output]:
        if value.type.tensor_type.elem_type == TensorProto.INT8:
            value.type.tensor_type.elem_type = TensorProto.UINT8
    for node in graph.node:
        integers = {"QuantizeLinear": node.output, "DequantizeLinear": node.input}.get(node.op_type)
        if not integers or integers[0] in constants:
            continue
        zero = constants[node.input[2]]
        value = numpy_helper.to_array(zero)
        if value.dtype == np.int8:
            zero.CopyFrom(numpy_helper.from_array((value.astype(np.int16) + 128).astype(np.uint8), zero.name))
    del graph.value_info[:]
    return model


def flipped(value: np.ndarray, kind) -> np.ndarray:
    """The same numbers counted in the other kind of bytes."""
    return value if value.dtype == kind else (value.view(np.uint8) ^ 0x80).view(kind)


def main() -> None:
    path, data, out = map(Path, sys.argv[1:4])
    model = onnx.load(path)
    run = session(on_unsigned(model))
    first = run.get_inputs()[0]
    signed = any(i.type.tensor_type.elem_type == TensorProto.INT8 for i in model.graph.input)
    dtype = np.int8 if signed else {"tensor(float)": np.float32, "tensor(uint8)": np.uint8, "tensor(int8)": np.int8}[first.type]
    count = IMAGES if not path.name.startswith(("yolox", "deeplab")) else 10
    with open(out / "in", "wb") as given, open(out / "out", "wb") as results:
        for _, value in zip(range(count), inputs(path.name, data)):
            value = np.ascontiguousarray(value[None], dtype)
            given.write(value.tobytes())
            for result in run.run(None, {first.name: flipped(value, np.uint8) if signed else value}):
                result = flipped(result, np.int8) if signed and result.dtype == np.uint8 else result
                results.write(np.ascontiguousarray(result).tobytes())


if __name__ == "__main__":
    main()
