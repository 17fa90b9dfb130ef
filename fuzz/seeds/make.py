"""Makes the seeds: the smallest quantized networks of each form. `python fuzz/seeds/make.py` (needs onnx)."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

HERE = Path(__file__).parent


def save(name: str, nodes: list, constants: dict[str, np.ndarray]) -> None:
    graph = helper.make_graph(
        nodes,
        "seed",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 6, 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), key) for key, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", 13), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    onnx.save(onnx.shape_inference.infer_shapes(model), HERE / f"{name}.onnx")


def node(op: str, inputs: str, output: str, **attributes) -> onnx.NodeProto:
    return helper.make_node(op, inputs.split(), [output], **attributes)


weights = np.arange(-54, 54).astype(np.int8).reshape(4, 3, 3, 3)
shared = {
    "s": np.float32(0.1),
    "z": np.uint8(128),
    "w": weights,
    "ws": np.full(4, 0.01, np.float32),
    "wz": np.zeros(4, np.int8),
    "b": np.arange(4).astype(np.int32),
    "bs": np.full(4, 0.001, np.float32),
    "bz": np.zeros(4, np.int32),
}
save(
    "qdq",
    [
        node("QuantizeLinear", "x s z", "xq"),
        node("DequantizeLinear", "xq s z", "xd"),
        node("DequantizeLinear", "w ws wz", "wd", axis=0),
        node("DequantizeLinear", "b bs bz", "bd", axis=0),
        node("Conv", "xd wd bd", "c", pads=[1, 1, 1, 1], strides=[2, 2]),
        node("Relu", "c", "r"),
        node("QuantizeLinear", "r s z", "rq"),
        node("DequantizeLinear", "rq s z", "rd"),
        node("Add", "rd rd", "a"),
        node("QuantizeLinear", "a s z", "aq"),
        node("DequantizeLinear", "aq s z", "ad"),
        node("GlobalAveragePool", "ad", "g"),
        node("QuantizeLinear", "g s z", "gq"),
        node("DequantizeLinear", "gq s z", "gd"),
        node("Flatten", "gd", "y"),
    ],
    shared,
)
save(
    "qoperator",
    [
        node("QuantizeLinear", "x s z", "xq"),
        node("QLinearConv", "xq s z w ws wz s z b", "c", pads=[1, 1, 1, 1]),
        node("MaxPool", "c", "m", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("QLinearAdd", "m s z m s z s z".split(), ["a"], domain="com.microsoft"),
        node("DequantizeLinear", "a s z", "d"),
        node("Flatten", "d", "f"),
        node("Softmax", "f", "y"),
    ],
    shared,
)
