"""Networks -> ONNX: batch 1, opset 13, batch norm folded, outputs checked against PyTorch's."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import nn

from . import resnet
from .errors import Refused

OPSET = 13
INPUT = "input"


def as_convolution(skip: resnet.PadShortcut, channels: int) -> nn.Conv2d:
    """The same function as a 1x1 convolution with stride 2 whose weights are 0 and 1.

    Quantizers and integer engines take it; strided slices and channel padding they leave in float. 1 is exact in int8.
    """
    c = nn.Conv2d(channels, channels + skip.missing, 1, skip.stride, bias=False)
    with torch.no_grad():
        c.weight.zero_()
        for i in range(channels):
            c.weight[skip.missing // 2 + i, i] = 1
    return c


def replace_pad_shortcuts(model: nn.Module) -> None:
    for block in model.modules():
        if isinstance(getattr(block, "shortcut", None), resnet.PadShortcut):
            block.shortcut = as_convolution(block.shortcut, block.conv1.in_channels)


def folded(model: Path) -> onnx.ModelProto:
    """Constants computed, and paddings and batch norms put into their convolutions, by onnxruntime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(model)
    onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    return onnx.load(model)


def norms_to_convolutions(model: onnx.ModelProto) -> int:
    """Each batch norm that no convolution before it could take (pre-activation) -> a depthwise 1x1 convolution.

    The same function, in a form that quantizers and integer engines take. Returns how many there were.
    """
    graph = model.graph
    values = {i.name: onnx.numpy_helper.to_array(i) for i in graph.initializer}
    # The exporter writes equal parameters once and hands them on through Identity nodes.
    shared = [n for n in graph.node if n.op_type == "Identity" and n.input[0] in values]
    values |= {n.output[0]: values[n.input[0]] for n in shared}
    count = 0
    for node in graph.node:
        if node.op_type != "BatchNormalization":
            continue
        gamma, beta, mean, variance = (values[i] for i in node.input[1:5])
        epsilon = next((a.f for a in node.attribute if a.name == "epsilon"), 1e-5)
        factor = gamma / np.sqrt(variance + epsilon)
        weight, bias = f"{node.name}/weight", f"{node.name}/bias"
        graph.initializer.append(onnx.numpy_helper.from_array(factor.reshape(-1, 1, 1, 1), weight))
        graph.initializer.append(onnx.numpy_helper.from_array(beta - mean * factor, bias))
        conv = onnx.helper.make_node(
            "Conv", [node.input[0], weight, bias], [node.output[0]], node.name, group=len(factor), kernel_shape=[1, 1]
        )
        node.CopyFrom(conv)
        count += 1
    used = {i for n in graph.node for i in n.input}
    for n in [n for n in shared if n.output[0] not in used]:
        graph.node.remove(n)
    used = {i for n in graph.node for i in n.input}
    for i in [i for i in graph.initializer if i.name not in used]:
        graph.initializer.remove(i)
    return count


def torchvision_model(arch: str, classes: int, weights: Path | None) -> nn.Module:
    """A ResNet of torchvision, with the weights of a state dict file, or random ones."""
    import torchvision

    build = getattr(torchvision.models, arch, None)
    if build is None or "resne" not in arch:
        raise Refused(f"torchvision has no `{arch}`; write resnet18, resnet50, resnext50_32x4d, wide_resnet50_2, ...")
    return with_weights(build(weights=None, num_classes=classes), weights)


def timm_model(arch: str, classes: int, weights: Path | None) -> nn.Module:
    """A model of timm, with the weights of a state dict file, or random ones."""
    import timm

    if not timm.is_model(arch):
        near = timm.list_models(f"*{arch}*")[:8] or timm.list_models("resnet*")[:8]
        raise Refused(f"timm has no `{arch}`; it has {', '.join(near)}")
    return with_weights(timm.create_model(arch, pretrained=False, num_classes=classes), weights)


def with_weights(model: nn.Module, weights: Path | None) -> nn.Module:
    if weights is None:
        print("no --weights: the parameters are random")
        return model
    try:
        state = torch.load(weights, map_location="cpu", weights_only=True)
    except Exception as e:
        raise Refused(f"{weights} is no PyTorch state dict: {e}") from e
    state = state.get("state_dict", state.get("model", state))
    # What nn.DataParallel puts before each name.
    state = {name.removeprefix("module."): value for name, value in state.items()}
    try:
        model.load_state_dict(state)
    except RuntimeError as e:
        raise Refused(f"{weights} does not fit the network: {e}") from e
    return model


def export(model: nn.Module, size: tuple[int, int], shape: tuple[int, ...], out: Path) -> Path:
    """Writes `out` and compares it with `model` on random pictures. `shape`: of the output for one picture."""
    model.eval()
    replace_pad_shortcuts(model)
    with torch.inference_mode():
        given = tuple(model(torch.zeros(1, 3, *size)).shape)
    if given != shape:
        raise Refused(f"the network gives {given} for one picture, not {shape}")
    return write(model, (1, 3, *size), ["logits" if len(shape) == 2 else "detections"], out)


def write(model: nn.Module, shape: tuple[int, ...], outputs: list[str], out: Path) -> Path:
    """Writes `out` with these outputs, and compares it with `model` on random inputs of this shape."""
    import onnxruntime

    # Of the wrapper, too: the exporter restores its mode for all that is in it.
    model.eval()

    def given(x: torch.Tensor) -> list[np.ndarray]:
        with torch.inference_mode():
            y = model(x)
        return [t.numpy() for t in ((y,) if isinstance(y, torch.Tensor) else y)]

    torch.manual_seed(0)
    x = torch.randn(shape)
    out.parent.mkdir(parents=True, exist_ok=True)
    shapes = [y.shape for y in given(x)]
    with warnings.catch_warnings():
        # It warns of itself: the exporter that follows this one names nodes and pools otherwise; graphs here stay as they are
        # known. And of constants: what was written is compared with the network below.
        warnings.simplefilter("ignore")
        torch.onnx.export(model, (x,), str(out), opset_version=OPSET, input_names=[INPUT], output_names=outputs, dynamo=False)
    graph = folded(out)
    norms = norms_to_convolutions(graph)
    for info, name, dims in zip(graph.graph.output, outputs, shapes, strict=True):
        info.CopyFrom(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, dims))
    onnx.save(graph, out)
    onnx.checker.check_model(graph, full_check=True)
    session = onnxruntime.InferenceSession(str(out), providers=["CPUExecutionProvider"])
    worst = 0.0
    for _ in range(4):
        x = torch.randn(shape)
        for got, expected in zip(session.run(outputs, {INPUT: x.numpy()}), given(x), strict=True):
            worst = max(worst, float(np.abs(got - expected).max() / max(1.0, np.abs(expected).max())))
    if worst > 1e-3:
        raise Refused(f"{out} computes something else than the network: relative difference {worst:.2g}")
    ops = sorted({n.op_type for n in graph.graph.node})
    print(f"wrote {out}: {len(graph.graph.node)} nodes ({', '.join(ops)}), largest relative difference {worst:.1e}")
    if norms:
        print(f"{norms} pre-activation batch norms became depthwise 1x1 convolutions")
    return out
