"""What the case scripts share: onnxruntime as the reference, and the files of a case."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort


def session(model: onnx.ModelProto) -> ort.InferenceSession:
    """Exact integers: without this entry, onnxruntime saturates between products where a CPU has AVX2 and no VNNI."""
    model = unshared(model)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.add_session_config_entry("session.x64quantprecision", "1")
    try:
        return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except (ort.capi.onnxruntime_pybind11_state.Fail, ort.capi.onnxruntime_pybind11_state.NotImplemented):
        # onnxruntime 1.32 fuses what it then has no kernel for; each node alone is exact too.
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def unshared(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of each constant for each that reads it: onnxruntime 1.32 cannot pack one that two convolutions share."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    constants = {i.name: i for i in copy.graph.initializer}
    read = set()
    for node in copy.graph.node:
        for at, name in enumerate(node.input):
            if name in constants and name in read:
                own = copy.graph.initializer.add()
                own.CopyFrom(constants[name])
                own.name = node.input[at] = f"{name}/{len(copy.graph.initializer)}"
            read.add(name)
    return copy


def write(out: Path, name: str, model: onnx.ModelProto, inputs: dict[str, np.ndarray], step: float) -> None:
    """One case: the model, its inputs, onnxruntime's outputs; `step` is what a float output is counted in."""
    results = session(model).run(None, inputs)
    onnx.save(model, out / f"{name}.onnx")
    order = [i.name for i in model.graph.input]
    (out / f"{name}.in").write_bytes(b"".join(np.ascontiguousarray(inputs[n]).tobytes() for n in order))
    (out / f"{name}.out").write_bytes(b"".join(np.ascontiguousarray(r).tobytes() for r in results))
    (out / f"{name}.step").write_text(str(step))
