"""ONNX in float -> ONNX in int8: onnxruntime's static QDQ.

Activations u8 per tensor, weights s8 per output channel, biases i32. Ranges come from calibration pictures.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnxruntime import quantization as ort_quantization
from onnxruntime.quantization.shape_inference import quant_pre_process
from tqdm import tqdm

from . import boxes
from .data import IMAGENET, BoxedPictures, Normalization, Pictures
from .errors import Refused

METHODS = {
    "minmax": ort_quantization.CalibrationMethod.MinMax,
    "entropy": ort_quantization.CalibrationMethod.Entropy,
    "percentile": ort_quantization.CalibrationMethod.Percentile,
}


class Reader(ort_quantization.CalibrationDataReader):
    """Hands what `feeds` gives to onnxruntime, one by one."""

    def __init__(self, *fed):
        self.fed = fed
        self.rewind()

    def get_next(self) -> dict | None:
        return next(self.iterator, None)

    def rewind(self) -> None:
        self.iterator = feeds(*self.fed)


def feeds(model: Path, pictures: Pictures, normalize: Normalization, first_stage: Path | None = None) -> Iterator[dict]:
    """A model's inputs: normalized pictures, or what a detector's first stage finds in them."""
    if first_stage:
        from . import pyramid

        yield from pyramid.feeds(first_stage, model, pictures, normalize)
        return
    name = onnx.load(model).graph.input[0].name
    for i in range(len(pictures)):
        yield {name: normalize(pictures.images[i : i + 1])}


def session(model: Path | onnx.ModelProto) -> onnxruntime.InferenceSession:
    """A session that computes what the file says.

    Without the setting, onnxruntime fuses QDQ into integer kernels whose u8 x s8 products saturate at 16 bits on x86-64 CPUs
    without VNNI: logits of the scene network were off by up to 7.6 and its accuracy by 0.7 points.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    source = str(model) if isinstance(model, Path) else model.SerializeToString()
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def quantize(
    model: Path,
    calibration: Pictures,
    out: Path,
    method: str = "minmax",
    keep_float: tuple[str, ...] = (),
    normalize: Normalization = IMAGENET,
    first_stage: Path | None = None,
) -> Path:
    """Writes `out`. `keep_float`: names of nodes that are not quantized. `first_stage`: of a detector whose second `model` is."""
    if not model.is_file():
        raise Refused(f"{model} is not there: run `export` first")
    known = {n.name for n in onnx.load(model).graph.node}
    if unknown := set(keep_float) - known:
        raise Refused(f"{model} has no node {', '.join(sorted(unknown))}; see the names in the table that `quantize` prints")
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(str(model), str(prepared), skip_symbolic_shape=True)
        out.parent.mkdir(parents=True, exist_ok=True)
        ort_quantization.quantize_static(
            str(prepared),
            str(out),
            Reader(model, calibration, normalize, first_stage),
            quant_format=ort_quantization.QuantFormat.QDQ,
            activation_type=ort_quantization.QuantType.QUInt8,
            weight_type=ort_quantization.QuantType.QInt8,
            per_channel=True,
            calibrate_method=METHODS[method],
            nodes_to_exclude=list(keep_float),
        )
    return out


def tail(model: Path) -> tuple[str, ...]:
    """The nodes behind the last convolutions: a detector's, which bring boxes and probabilities, of different ranges, together."""
    graph = onnx.load(model).graph
    readers: dict[str, list[onnx.NodeProto]] = {}
    for n in graph.node:
        for i in n.input:
            readers.setdefault(i, []).append(n)
    computes = {"Conv", "Gemm", "MatMul"}
    leads: dict[str, bool] = {}
    # In the order of the graph, so that who reads a tensor comes after who makes it.
    for n in reversed(graph.node):
        after = [r for o in n.output for r in readers.get(o, [])]
        leads[n.name] = any(r.op_type in computes or leads[r.name] for r in after)
    return tuple(n.name for n in graph.node if n.op_type not in computes and not leads[n.name])


@dataclass
class LayerError:
    """How far a layer's output in the quantized model is from the float one."""

    node: str
    op: str
    sqnr_db: float
    """10 log10 of signal power over error power: 40 is very good, 20 fair, below 10 bad."""


def layer_errors(
    model: Path, quantized: Path, pictures: Pictures, normalize: Normalization = IMAGENET, first_stage: Path | None = None
) -> list[LayerError]:
    """SQNR of each convolution, addition and fully connected layer, worst first."""
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(str(model), str(prepared), skip_symbolic_shape=True)
        float_model = onnx.load(prepared)
    int_model = onnx.load(quantized)
    made = {o for n in int_model.graph.node for o in n.output}
    # onnxruntime's quantizer clips at zero instead of a ReLU and then gives the tensor the ReLU's name.
    readers: dict[str, list] = {}
    for n in float_model.graph.node:
        for i in n.input:
            readers.setdefault(i, []).append(n)
    layers = []
    for n in float_model.graph.node:
        if n.op_type not in {"Conv", "Gemm", "MatMul", "Add"}:
            continue
        tensor = n.output[0]
        after = readers.get(tensor, [])
        if len(after) == 1 and after[0].op_type in {"Relu", "Clip"}:
            tensor = after[0].output[0]
        dequantized = f"{tensor}_DequantizeLinear_Output"
        other = dequantized if dequantized in made else tensor
        if other in made:
            layers.append((n, tensor, other))

    def with_outputs(m: onnx.ModelProto, names: list[str]) -> onnx.ModelProto:
        del m.graph.output[:]
        for name in dict.fromkeys(names):
            m.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
        return m

    a = session(with_outputs(float_model, [t for _, t, _ in layers]))
    b = session(with_outputs(int_model, [o for _, _, o in layers]))
    signal, noise = np.zeros(len(layers)), np.zeros(len(layers))
    feeding = feeds(model, pictures, normalize, first_stage)
    for feed in tqdm(feeding, total=len(pictures), desc="SQNR", disable=None, leave=False):
        x = dict(zip([o.name for o in a.get_outputs()], a.run(None, feed)))
        y = dict(zip([o.name for o in b.get_outputs()], b.run(None, feed)))
        for i, (_, tensor, other) in enumerate(layers):
            signal[i] += float((x[tensor].astype(np.float64) ** 2).sum())
            noise[i] += float(((x[tensor].astype(np.float64) - y[other]) ** 2).sum())
    db = 10 * np.log10(np.maximum(signal, 1e-30) / np.maximum(noise, 1e-30))
    errors = [LayerError(n.name, n.op_type, round(float(d), 1)) for (n, _, _), d in zip(layers, db)]
    return sorted(errors, key=lambda e: e.sqnr_db)


def predictions(model: Path, pictures: Pictures, normalize: Normalization = IMAGENET) -> np.ndarray:
    """The class that the model gives to each picture."""
    s = session(model)
    bar = tqdm(feeds(model, pictures, normalize), total=len(pictures), desc=f"running {model.name}", disable=None, leave=False)
    return np.array([int(s.run(None, feed)[0][0].argmax()) for feed in bar])


def detections(
    model: Path, pictures: BoxedPictures, normalize: Normalization = IMAGENET, threshold: float = 0.01
) -> list[np.ndarray]:
    """What the model finds in each picture, as `boxes.found` gives it."""
    s = session(model)
    size = pictures.images.shape[1:3]
    bar = tqdm(feeds(model, pictures, normalize), total=len(pictures), desc=f"running {model.name}", disable=None, leave=False)
    return [boxes.found(s.run(None, feed)[0][0], size, threshold) for feed in bar]
