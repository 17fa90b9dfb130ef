"""A small detector: a residual backbone, a feature pyramid, and a head without anchors at each of the strides 8, 16 and 32.

Its output is YOLOX's (`family = "yolox"`): [N, cells, 5 + classes], centres in cells from the cell's own corner, sizes as logarithms of
cells, then probabilities of an object and of its class. How it is trained is simpler than YOLOX: which cells answer for an object
follows from its size and place alone.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor, nn

from . import boxes, resnet

LEVEL_PX = ((0, 40), (28, 80), (60, 100_000))
"""An object answers at the strides in whose range its longer side is, in pixels of the input; the ranges overlap."""
REACH = 1.0
"""The cells whose centre is so near to the object's, in cells along each axis, answer for it."""
BOX_WEIGHT = 5.0


@dataclass
class Config:
    """Everything that is needed to build a network again."""

    backbone: resnet.Config
    """Its last three stages have the strides 8, 16 and 32; its classes are those of the detector."""
    width: int
    """Channels of the pyramid and of the heads."""

    def to_dict(self) -> dict:
        return asdict(self)

    @staticmethod
    def from_dict(d: dict) -> "Config":
        return Config(resnet.Config.from_dict(d["backbone"]), d["width"])


def scene(classes: int = 6) -> Config:
    """ResNet-10 for 160x128 pictures of the `scene` camera."""
    backbone = resnet.scene(classes)
    backbone.input_size = (128, 160)
    return Config(backbone, 48)


class Head(nn.Module):
    def __init__(self, width: int, classes: int):
        super().__init__()
        self.tower = nn.Sequential(resnet.conv(width, width, 3), nn.BatchNorm2d(width), nn.ReLU())
        self.box = nn.Conv2d(width, 4, 1)
        self.classes = nn.Conv2d(width, 1 + classes, 1)
        # At first nothing is anywhere: else the many empty cells drown the few that answer.
        nn.init.constant_(self.classes.bias, -4.0)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.tower(x)
        return self.box(x).flatten(2), self.classes(x).flatten(2)


class Detector(nn.Module):
    """`[N, 3, height, width]` normalized pixels -> `[N, cells, 5 + classes]`."""

    def __init__(self, cfg: Config):
        super().__init__()
        if len(cfg.backbone.widths) != 4 or cfg.backbone.preact or cfg.backbone.stem == "cifar":
            raise ValueError("a detector wants four stages with the strides 4, 8, 16 and 32, and no pre-activation")
        self.cfg = cfg
        backbone = resnet.ResNet(cfg.backbone)
        self.stem, self.stages = backbone.stem, backbone.stages
        factor = resnet.EXPANSION if cfg.backbone.bottleneck else 1
        self.lateral = nn.ModuleList(nn.Conv2d(w * factor, cfg.width, 1) for w in cfg.backbone.widths[1:])
        self.heads = nn.ModuleList(Head(cfg.width, cfg.backbone.classes) for _ in boxes.STRIDES)

    def logits(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes `[N, 4, cells]`, objects and classes before their sigmoid `[N, 1 + classes, cells]`."""
        x = self.stages[0](self.stem(x))
        levels = []
        for stage in self.stages[1:]:
            x = stage(x)
            levels.append(x)
        from_above = None
        said = []
        for x, lateral, head in list(zip(levels, self.lateral, self.heads))[::-1]:
            x = lateral(x)
            if from_above is not None:
                x = x + nn.functional.interpolate(from_above, scale_factor=2.0, mode="nearest")
            from_above = x
            said.append(head(x))
        said.reverse()
        return torch.cat([b for b, _ in said], 2), torch.cat([c for _, c in said], 2)

    def forward(self, x: Tensor) -> Tensor:
        box, classes = self.logits(x)
        return torch.cat([box, classes.sigmoid()], 1).transpose(1, 2)


def answering(objects: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Which cells answer for which objects.

    `objects`: [M, 4] corners in pixels of the input. Returns pairs: indices of objects, indices of cells. Each object has a cell; a
    cell may have several objects.
    """
    grid = torch.from_numpy(boxes.cells(size))
    at, stride = (grid[:, :2] + 0.5) * grid[:, 2:], grid[:, 2]
    centre, side = (objects[:, :2] + objects[:, 2:]) / 2, (objects[:, 2:] - objects[:, :2]).amax(1)
    away = (at[None] - centre[:, None]).abs().amax(2) / stride
    fits = torch.zeros_like(away, dtype=torch.bool)
    for s, (least, most) in zip(boxes.STRIDES, LEVEL_PX):
        fits |= (stride == s) & (side[:, None] >= least) & (side[:, None] < most)
    # At the picture's edge a centre may be in no cell's reach but the nearest one's.
    nearest = torch.where(fits, away, torch.inf).argmin(1, keepdim=True)
    chosen = fits & (away < REACH)
    chosen.scatter_(1, nearest, True)
    pairs = chosen.nonzero()
    return pairs[:, 0], pairs[:, 1]


def corners(raw: Tensor, grid: Tensor) -> Tensor:
    """Raw boxes [P, 4] of these cells -> corners in pixels of the input."""
    centre, half = (raw[:, :2] + grid[:, :2]) * grid[:, 2:], raw[:, 2:].clamp(max=6).exp() * grid[:, 2:] / 2
    return torch.cat([centre - half, centre + half], 1)


def overlaps(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """IoU, and the generalized one, of each box of `a` with that of `b`."""
    area = lambda c: (c[:, 2:] - c[:, :2]).clamp(min=0).prod(1)
    both = area(torch.cat([torch.maximum(a[:, :2], b[:, :2]), torch.minimum(a[:, 2:], b[:, 2:])], 1))
    hull = area(torch.cat([torch.minimum(a[:, :2], b[:, :2]), torch.maximum(a[:, 2:], b[:, 2:])], 1))
    union = area(a) + area(b) - both
    iou = both / union.clamp(min=1e-6)
    return iou, iou - (hull - union) / hull.clamp(min=1e-6)


def loss(model: Detector, x: Tensor, objects: Tensor, precision: torch.dtype | None = None) -> Tensor:
    """`objects`: [M, 6] picture, class, corners in pixels of the input."""
    size = model.cfg.backbone.input_size
    with torch.autocast("cpu", precision or torch.bfloat16, enabled=precision is not None):
        box, classes = model.logits(x)
    box, classes = box.float(), classes.float()
    which, cell = answering(objects[:, 2:], size)
    picture, kind, truth = objects[which, 0].long(), objects[which, 1].long(), objects[which, 2:]
    is_object = torch.zeros_like(classes[:, 0])
    is_object[picture, cell] = 1
    count = max(1, len(which))
    total = nn.functional.binary_cross_entropy_with_logits(classes[:, 0], is_object, reduction="sum")
    if len(which):
        iou, generalized = overlaps(corners(box[picture, :, cell], torch.from_numpy(boxes.cells(size))[cell]), truth)
        wanted = torch.zeros(len(which), classes.shape[1] - 1)
        # Sure of the class as far as the box is right: so the best box has the best score.
        wanted[torch.arange(len(which)), kind] = iou.detach().clamp(min=0)
        total = total + nn.functional.binary_cross_entropy_with_logits(classes[picture, 1:, cell], wanted, reduction="sum")
        total = total + BOX_WEIGHT * (1 - generalized).sum()
    return total / count


def in_pixels(objects: list[np.ndarray], size: tuple[int, int]) -> Tensor:
    """A batch's objects (class and corners, 0 to 1) -> what `loss` takes."""
    scale = np.array([1, size[1], size[0], size[1], size[0]], np.float32)
    rows = [np.concatenate([np.full((len(o), 1), n, np.float32), o * scale], 1) for n, o in enumerate(objects)]
    return torch.from_numpy(np.concatenate(rows)) if rows else torch.zeros(0, 6)
