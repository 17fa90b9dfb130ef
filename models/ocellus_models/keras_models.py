"""Keras's networks as PyTorch modules, channels first.

Keras's own exporters write its channels-last convolutions with transpositions around them and its batch norms as four operations.
So each layer becomes PyTorch's of the same kind, and from there the road is the same for everybody. What the layers compute is
compared with Keras before anything is written.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from .errors import Refused

os.environ["KERAS_BACKEND"] = "torch"
import keras  # noqa: E402


def load(what: str, classes: int, size: tuple[int, int], weights: Path | None) -> nn.Module:
    """A `.keras` or `.h5` file, or a ResNet of `keras.applications` with the weights of a file or random ones."""
    if what.endswith((".keras", ".h5")):
        if not Path(what).is_file():
            raise Refused(f"{what} is not there")
        try:
            return Network(keras.models.load_model(what, compile=False))
        except (ValueError, TypeError, OSError) as e:
            raise Refused(f"{what} is no Keras model that can be read: {e}") from e
    build = getattr(keras.applications, what, None)
    if build is None or not what.startswith("ResNet"):
        raise Refused(f"Keras has no `{what}`; write ResNet50, ResNet101V2, ..., or a .keras or .h5 file")
    model = build(weights=None, classes=classes, input_shape=(*size, 3), classifier_activation=None)
    if weights is None:
        print("no --weights: the parameters are random")
    else:
        try:
            model.load_weights(weights)
        except (ValueError, OSError) as e:
            raise Refused(f"{weights} does not fit {what}: {e}") from e
    return Network(model)


class Network(nn.Module):
    """A functional or sequential Keras model on [N, 3, height, width]. A softmax at its end is left out."""

    def __init__(self, model: "keras.Model"):
        super().__init__()
        if len(model.inputs) != 1 or len(model.outputs) != 1:
            raise Refused(f"{model.name} has {len(model.inputs)} inputs and {len(model.outputs)} outputs; one of each is wanted")
        layers = [layer for layer in model.layers if not isinstance(layer, keras.layers.InputLayer)]
        softmax = getattr(layers[-1], "activation", None) is keras.activations.softmax
        self.layers = nn.ModuleList(module(layer, without_activation=softmax and layer is layers[-1]) for layer in layers)
        self.sources = [[id(t) for t in tensors(layer)] for layer in layers]
        self.targets = [id(layer.output) for layer in layers]
        self.source = id(model.inputs[0])
        self.size, self.classes = tuple(model.input_shape[1:3]), model.output_shape[-1]
        self.eval()
        self.compare(model, softmax)

    def forward(self, x: Tensor) -> Tensor:
        values = {self.source: x}
        for layer, sources, target in zip(self.layers, self.sources, self.targets):
            values[target] = layer(*[values[s] for s in sources])
        return values[self.targets[-1]]

    @torch.no_grad()
    def compare(self, model: "keras.Model", softmax: bool) -> None:
        x = torch.randn(1, 3, *self.size)
        expected, got = model(x.permute(0, 2, 3, 1), training=False).cpu(), self(x)
        if softmax:
            got = got.softmax(-1)
        if not torch.allclose(expected, got, atol=1e-4, rtol=1e-3):
            raise Refused(f"{model.name}: PyTorch computes something else than Keras; a layer of it is not understood")


def tensors(layer: "keras.Layer") -> list:
    try:
        return layer.input if isinstance(layer.input, list) else [layer.input]
    except (AttributeError, ValueError) as e:
        raise Refused(f"layer `{layer.name}` is used more than once or not at all") from e


class Sum(nn.Module):
    def forward(self, *x: Tensor) -> Tensor:
        total = x[0]
        for other in x[1:]:
            total = total + other
        return total


ACTIVATIONS = {"linear": nn.Identity, "relu": nn.ReLU, "relu6": nn.ReLU6}


def activation(layer: "keras.Layer") -> nn.Module:
    name = layer.activation.__name__
    if name not in ACTIVATIONS:
        raise Refused(f"layer `{layer.name}` has the activation `{name}`; known are {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]()


def values(x) -> Tensor:
    return torch.from_numpy(np.array(keras.ops.convert_to_numpy(x)))


def edges(layer: "keras.Layer", kernel: tuple[int, int]) -> list[int]:
    """What `same` adds: left, right, top, bottom; the odd pixel goes right and down."""
    if layer.padding == "valid":
        return [0, 0, 0, 0]
    both = []
    for n, k, s in zip(layer.input.shape[1:3], kernel, layer.strides):
        total = max((-(-n // s) - 1) * s + k - n, 0)
        both.append([total // 2, total - total // 2])
    return both[1] + both[0]


def convolution(layer: "keras.layers.Conv2D") -> nn.Module:
    kernel = values(layer.kernel).permute(3, 2, 0, 1)
    reach = tuple((k - 1) * d + 1 for k, d in zip(layer.kernel_size, layer.dilation_rate))
    left, right, top, bottom = edges(layer, reach)
    even = left == right and top == bottom
    c = nn.Conv2d(
        kernel.shape[1] * layer.groups, kernel.shape[0], layer.kernel_size, layer.strides, (top, left) if even else 0,
        layer.dilation_rate, layer.groups, bias=layer.use_bias,
    )  # fmt: skip
    with torch.no_grad():
        c.weight.copy_(kernel)
        if layer.use_bias:
            c.bias.copy_(values(layer.bias))
    return nn.Sequential(*([] if even else [nn.ZeroPad2d([left, right, top, bottom])]), c, activation(layer))


def norm(layer: "keras.layers.BatchNormalization") -> nn.Module:
    n = nn.BatchNorm2d(layer.moving_mean.shape[0], eps=layer.epsilon)
    with torch.no_grad():
        n.running_mean.copy_(values(layer.moving_mean))
        n.running_var.copy_(values(layer.moving_variance))
        if layer.scale:
            n.weight.copy_(values(layer.gamma))
        if layer.center:
            n.bias.copy_(values(layer.beta))
    return n


def max_pool(layer: "keras.layers.MaxPooling2D") -> nn.Module:
    left, right, top, bottom = edges(layer, layer.pool_size)
    if left != top or right != bottom or right - left > 1:
        raise Refused(f"layer `{layer.name}` pads its two axes differently")
    # An edge of one pixel on the right and below is what rounding up does.
    return nn.MaxPool2d(layer.pool_size, layer.strides, left, ceil_mode=right > left)


def linear(layer: "keras.layers.Dense", without_activation: bool) -> nn.Module:
    kernel = values(layer.kernel)
    fc = nn.Linear(*kernel.shape, bias=layer.use_bias)
    with torch.no_grad():
        fc.weight.copy_(kernel.T)
        if layer.use_bias:
            fc.bias.copy_(values(layer.bias))
    return fc if without_activation else nn.Sequential(fc, activation(layer))


def module(layer: "keras.Layer", without_activation: bool) -> nn.Module:
    """PyTorch's module for a layer."""
    k = keras.layers
    if getattr(layer, "data_format", "channels_last") != "channels_last":
        raise Refused(f"layer `{layer.name}` has channels first; Keras's usual order is wanted")
    match layer:
        case k.Conv2D() if type(layer) is k.Conv2D:
            return convolution(layer)
        case k.BatchNormalization():
            return norm(layer)
        case k.Activation():
            return nn.Identity() if without_activation else activation(layer)
        case k.ReLU() if layer.max_value in (None, 6) and not layer.negative_slope and not layer.threshold:
            return nn.ReLU() if layer.max_value is None else nn.ReLU6()
        case k.Add():
            return Sum()
        case k.ZeroPadding2D():
            (top, bottom), (left, right) = layer.padding
            return nn.ZeroPad2d([left, right, top, bottom])
        case k.MaxPooling2D():
            return max_pool(layer)
        case k.GlobalAveragePooling2D():
            return nn.Sequential(nn.AdaptiveAvgPool2d(1), *([] if layer.keepdims else [nn.Flatten()]))
        case k.Flatten() if len(layer.input.shape) == 2 or tuple(layer.input.shape[1:3]) == (1, 1):
            return nn.Flatten()
        case k.Dense():
            return linear(layer, without_activation)
        case k.Dropout():
            return nn.Identity()
        case k.Rescaling() | k.Normalization():
            raise Refused(f"layer `{layer.name}` normalizes pixels; leave it out and say the same with --normalize")
    raise Refused(
        f"layer `{layer.name}` is a {type(layer).__name__}, which is not known here; write the ONNX file with tf2onnx and go on "
        "with `quantize`"
    )
