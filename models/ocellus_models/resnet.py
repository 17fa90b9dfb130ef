"""Residual networks, written plainly.

Blocks: basic (two 3x3 convolutions) and bottleneck (1x1, 3x3, 1x1; v1.5: the stride is on the 3x3), each after
He et al. 2015 (v1: ReLU after the addition) or He et al. 2016 (v2: pre-activation).
Stems: `cifar` (3x3), `half` (3x3, stride 2, and a 2x2 pooling) and `imagenet` (7x7, stride 2, and a 3x3 pooling).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

import torch
from torch import Tensor, nn

EXPANSION = 4


@dataclass
class Config:
    """Everything that is needed to build a network again."""

    blocks: list[int]
    """Residual blocks in each stage; every stage but the first halves the picture."""
    widths: list[int]
    """Channels in each stage, before a bottleneck's expansion."""
    classes: int
    stem: str = "imagenet"
    bottleneck: bool = False
    preact: bool = False
    shortcut: str = "projection"
    """`projection`: a 1x1 convolution where the shape changes. `pad`: subsampling and zero channels (CIFAR, option A)."""
    input_size: tuple[int, int] = field(default=(224, 224))
    """Height, width."""

    def to_dict(self) -> dict:
        return asdict(self)

    @staticmethod
    def from_dict(d: dict) -> "Config":
        return Config(**{**d, "input_size": tuple(d["input_size"])})


def conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)


class PadShortcut(nn.Module):
    """Every second pixel, and zeros for the channels that the input lacks: no parameters."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.stride, self.missing = stride, outputs - inputs

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, :, :: self.stride, :: self.stride]
        before = self.missing // 2
        return nn.functional.pad(x, (0, 0, 0, 0, before, self.missing - before))


class Basic(nn.Module):
    def __init__(self, inputs: int, width: int, stride: int, cfg: Config):
        super().__init__()
        self.conv1, self.bn1 = conv(inputs, width, 3, stride), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = conv(width, width, 3), nn.BatchNorm2d(width)
        self.shortcut = shortcut(inputs, width, stride, cfg)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return torch.relu(y + self.shortcut(x))


class Bottleneck(nn.Module):
    def __init__(self, inputs: int, width: int, stride: int, cfg: Config):
        super().__init__()
        outputs = width * EXPANSION
        self.conv1, self.bn1 = conv(inputs, width, 1), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = conv(width, width, 3, stride), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = conv(width, outputs, 1), nn.BatchNorm2d(outputs)
        self.shortcut = shortcut(inputs, outputs, stride, cfg)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.bn1(self.conv1(x)))
        y = torch.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return torch.relu(y + self.shortcut(x))


class PreBasic(nn.Module):
    def __init__(self, inputs: int, width: int, stride: int, cfg: Config):
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(inputs), conv(inputs, width, 3, stride)
        self.bn2, self.conv2 = nn.BatchNorm2d(width), conv(width, width, 3)
        self.shortcut = shortcut(inputs, width, stride, cfg)

    def forward(self, x: Tensor) -> Tensor:
        a = torch.relu(self.bn1(x))
        # A projection sees the activated input, the identity sees the raw one.
        skip = x if isinstance(self.shortcut, nn.Identity) else self.shortcut(a)
        y = self.conv1(a)
        y = self.conv2(torch.relu(self.bn2(y)))
        return y + skip


class PreBottleneck(nn.Module):
    def __init__(self, inputs: int, width: int, stride: int, cfg: Config):
        super().__init__()
        outputs = width * EXPANSION
        self.bn1, self.conv1 = nn.BatchNorm2d(inputs), conv(inputs, width, 1)
        self.bn2, self.conv2 = nn.BatchNorm2d(width), conv(width, width, 3, stride)
        self.bn3, self.conv3 = nn.BatchNorm2d(width), conv(width, outputs, 1)
        self.shortcut = shortcut(inputs, outputs, stride, cfg)

    def forward(self, x: Tensor) -> Tensor:
        a = torch.relu(self.bn1(x))
        skip = x if isinstance(self.shortcut, nn.Identity) else self.shortcut(a)
        y = self.conv1(a)
        y = self.conv2(torch.relu(self.bn2(y)))
        y = self.conv3(torch.relu(self.bn3(y)))
        return y + skip


def shortcut(inputs: int, outputs: int, stride: int, cfg: Config) -> nn.Module:
    if inputs == outputs and stride == 1:
        return nn.Identity()
    if cfg.shortcut == "pad":
        return PadShortcut(inputs, outputs, stride)
    projection = conv(inputs, outputs, 1, stride)
    return projection if cfg.preact else nn.Sequential(projection, nn.BatchNorm2d(outputs))


def stem(cfg: Config) -> nn.Module:
    width = cfg.widths[0]
    # Pre-activation blocks normalize their own input, but the stem's pooling wants positive values.
    normalized = [nn.BatchNorm2d(width), nn.ReLU()]
    match cfg.stem:
        case "cifar":
            return nn.Sequential(conv(3, width, 3), *([] if cfg.preact else normalized))
        case "half":
            return nn.Sequential(conv(3, width, 3, 2), *normalized, nn.MaxPool2d(2))
        case "imagenet":
            return nn.Sequential(conv(3, width, 7, 2), *normalized, nn.MaxPool2d(3, 2, padding=1))
    raise ValueError(f"unknown stem `{cfg.stem}`; write cifar, half or imagenet")


class ResNet(nn.Module):
    """`[N, 3, height, width]` normalized pixels -> `[N, classes]` logits."""

    def __init__(self, cfg: Config):
        super().__init__()
        if len(cfg.blocks) != len(cfg.widths):
            raise ValueError(f"{len(cfg.blocks)} stages of blocks but {len(cfg.widths)} widths")
        self.cfg = cfg
        block = {
            (False, False): Basic,
            (True, False): Bottleneck,
            (False, True): PreBasic,
            (True, True): PreBottleneck,
        }[cfg.bottleneck, cfg.preact]
        self.stem = stem(cfg)
        stages, inputs = [], cfg.widths[0]
        for i, (count, width) in enumerate(zip(cfg.blocks, cfg.widths)):
            stage = []
            for j in range(count):
                stage.append(block(inputs, width, 2 if i > 0 and j == 0 else 1, cfg))
                inputs = width * (EXPANSION if cfg.bottleneck else 1)
            stages.append(nn.Sequential(*stage))
        self.stages = nn.Sequential(*stages)
        self.last = nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU()) if cfg.preact else nn.Identity()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(inputs, cfg.classes)
        for m in self.modules():
            if isinstance(m, nn.Conv2d):
                nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        x = self.last(self.stages(self.stem(x)))
        return self.fc(torch.flatten(self.pool(x), 1))


def cifar(depth: int, classes: int = 10) -> Config:
    """ResNet-20, 32, 44, 56, 110 as in He et al. 2015, section 4.2: 6n + 2 layers, shortcuts without parameters."""
    if depth < 8 or (depth - 2) % 6:
        raise ValueError(f"a CIFAR ResNet has 6n + 2 layers (8, 14, 20, 32, ...), not {depth}")
    n = (depth - 2) // 6
    return Config([n] * 3, [16, 32, 64], classes, stem="cifar", shortcut="pad", input_size=(32, 32))


IMAGENET_BLOCKS = {
    18: ([2, 2, 2, 2], False),
    34: ([3, 4, 6, 3], False),
    50: ([3, 4, 6, 3], True),
    101: ([3, 4, 23, 3], True),
    152: ([3, 8, 36, 3], True),
}


def imagenet(depth: int, classes: int = 1000, preact: bool = False) -> Config:
    """ResNet-18, 34, 50, 101, 152."""
    if depth not in IMAGENET_BLOCKS:
        raise ValueError(f"depth {depth} is none of {sorted(IMAGENET_BLOCKS)}")
    blocks, bottleneck = IMAGENET_BLOCKS[depth]
    return Config(blocks, [64, 128, 256, 512], classes, bottleneck=bottleneck, preact=preact)


def scene(classes: int = 7) -> Config:
    """ResNet-10 for 96x96 pictures of the `scene` camera."""
    return Config([1, 1, 1, 1], [16, 32, 64, 128], classes, stem="half", input_size=(96, 96))
