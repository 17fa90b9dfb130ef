"""The reference for the model tests: onnxruntime on tensors that the firmware made.

python onnxruntime_outputs.py MODEL INPUTS OUT [TENSOR]: INPUTS holds whole inputs, one after the other, in the model's type
and shape (batch 1). OUT gets the first output, or TENSOR, of each as little-endian f32; a quantized one is dequantized.
"""

import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort


def main() -> None:
    path, inputs, out = map(Path, sys.argv[1:4])
    model = onnx.load(path)
    if len(sys.argv) > 4:
        model.graph.output.insert(0, onnx.helper.make_empty_tensor_value_info(sys.argv[4]))
    session = exact_session(model.SerializeToString())
    first = session.get_inputs()[0]
    dtype = {"tensor(float)": "<f4", "tensor(uint8)": "u1", "tensor(int8)": "i1"}[first.type]
    shape = [1 if not isinstance(d, int) else d for d in first.shape]
    tensors = np.frombuffer(inputs.read_bytes(), dtype).reshape(-1, *shape[1:])
    output = session.get_outputs()[0].name
    results = [session.run([output], {first.name: t[None]})[0] for t in tensors]
    scale, zero = quantization(model.graph, output)
    with open(out, "wb") as f:
        for r in results:
            f.write(((r.astype(np.float32) - zero) * scale).astype("<f4").tobytes())


def exact() -> ort.SessionOptions:
    """Without this, onnxruntime saturates between products on x86-64 CPUs that have AVX2 and no VNNI: wrong by up to 1 %."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.add_session_config_entry("session.x64quantprecision", "1")
    return options


def exact_session(model: bytes) -> ort.InferenceSession:
    try:
        return ort.InferenceSession(model, exact(), providers=["CPUExecutionProvider"])
    except ort.capi.onnxruntime_pybind11_state.Fail:
        # onnxruntime 1.32 cannot do it where two convolutions share an initializer; as written, each node alone, is exact too.
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def quantization(graph: onnx.GraphProto, tensor: str) -> tuple[float, float]:
    """Scale and zero point of the QuantizeLinear that writes the tensor, if one does."""
    constants = {i.name: onnx.numpy_helper.to_array(i) for i in graph.initializer}
    for node in graph.node:
        if tensor in node.output and node.op_type == "QuantizeLinear":
            return float(constants[node.input[1]]), float(constants[node.input[2]])
    return 1.0, 0.0


if __name__ == "__main__":
    main()
