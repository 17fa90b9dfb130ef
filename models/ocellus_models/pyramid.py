"""torchvision's RetinaNet and Faster R-CNN with a feature pyramid -> static graphs.

What depends on data (anchors, suppression, regions) is the firmware's: its families `retinanet` and `faster_rcnn`. The graphs are what lies
between, and give the heads as the convolutions write them, the coarsest level first.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn
from torchvision import ops
from torchvision.models import detection

from .bundle import pyramid_family
from .data import Normalization, Pictures
from .errors import Refused
from .export import with_weights, write

ARCHITECTURES = ("retinanet_resnet50_fpn", "retinanet_resnet50_fpn_v2", "fasterrcnn_resnet50_fpn", "fasterrcnn_resnet50_fpn_v2")
LEVELS = 5
REGION = 7
"""Cells along each side of a region."""
MULTIPLE = 32
"""Of the picture's sides: else levels that are added would not be twice as large as each other."""


def build(arch: str, classes: int, weights: Path | None, epsilon: float | None = None) -> nn.Module:
    """`classes` as torchvision counts them, with its class 0. `epsilon`: of the batch norms, if not torchvision's 1e-5."""
    model = getattr(detection, arch)(weights=None, weights_backbone=None, num_classes=classes)
    for norm in model.modules():
        if epsilon is not None and isinstance(norm, nn.BatchNorm2d):
            norm.eps = epsilon
    return with_weights(model, weights).eval()


def export(arch: str, classes: int, weights: Path | None, epsilon: float | None, size: tuple[int, int], regions: int, out: Path) -> None:
    """Writes `out`, and beside it a Faster R-CNN's second stage for so many regions at a time."""
    if any(side % MULTIPLE for side in size):
        raise Refused(f"{size[1]}x{size[0]}: both sides must be multiples of {MULTIPLE}")
    model = build(arch, classes, weights, epsilon)
    if isinstance(model, detection.RetinaNet):
        graph = RetinaNet(model)
        write(graph, (1, 3, *size), graph.outputs(), out)
        return
    graph, head = FirstStage(model), BoxHead(model)
    write(graph, (1, 3, *size), graph.outputs(), out)
    shape = (regions, model.backbone.out_channels, REGION, REGION)
    write(head, shape, head.outputs(), out.with_name(f"{out.stem}-box-head.onnx"))


class RetinaNet(nn.Module):
    """`[1, 3, height, width]` normalized pixels -> for each level box offsets `[1, 4·anchors, h, w]` and logits `[1, classes·anchors, h, w]`."""

    def __init__(self, model: detection.RetinaNet):
        super().__init__()
        self.backbone, self.boxes, self.classes = model.backbone, model.head.regression_head, model.head.classification_head

    def outputs(self) -> list[str]:
        return [f"{what}_{level}" for level in reversed(range(LEVELS)) for what in ("bbox_regression", "cls_logits")]

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        out = []
        for level in reversed(self.backbone(x).values()):
            out += [self.boxes.bbox_reg(self.boxes.conv(level)), self.classes.cls_logits(self.classes.conv(level))]
        return tuple(out)


class FirstStage(nn.Module):
    """Faster R-CNN's: for each level box offsets and objectness, then the levels that regions are taken from, the finest first."""

    def __init__(self, model: detection.FasterRCNN):
        super().__init__()
        self.backbone, self.rpn = model.backbone, model.rpn.head

    def outputs(self) -> list[str]:
        heads = [f"{what}_{level}" for level in reversed(range(LEVELS)) for what in ("bbox_pred", "objectness")]
        return heads + [f"feature_{level}" for level in range(LEVELS - 1)]

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        levels = list(self.backbone(x).values())
        out = []
        for level in reversed(levels):
            level = self.rpn.conv(level)
            out += [self.rpn.bbox_pred(level), self.rpn.cls_logits(level)]
        return (*out, *levels[:-1])


class BoxHead(nn.Module):
    """Faster R-CNN's second stage: `[regions, channels, 7, 7]` -> logits `[regions, classes]` and box offsets `[regions, 4·classes]`."""

    def __init__(self, model: detection.FasterRCNN):
        super().__init__()
        self.head, self.predictor = model.roi_heads.box_head, model.roi_heads.box_predictor

    def outputs(self) -> list[str]:
        return ["class_logits", "box_regression"]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.predictor(self.head(x))


def labels(model: Path, box_head: Path | None, names: list[str] | None) -> list[str]:
    """One for each class that the firmware tells apart: torchvision's class 0 counts in RetinaNet's logits, and is Faster R-CNN's background."""
    if box_head:
        classes = outputs(box_head)["class_logits"][1]
    else:
        classes = outputs(model)["cls_logits_0"][1] // (outputs(model)["bbox_regression_0"][1] // 4)
    if names is None:
        names = detection.RetinaNet_ResNet50_FPN_Weights.COCO_V1.meta["categories"][1:]
    if len(names) != classes - 1:
        raise Refused(f"{len(names)} labels for {classes - 1} classes: --labels wants one a line, without torchvision's class 0")
    return names if box_head else ["__background__", *names]


def outputs(model: Path) -> dict[str, list[int]]:
    """Names and shapes."""
    return {o.name: [d.dim_value for d in o.type.tensor_type.shape.dim] for o in onnx.load(model).graph.output}


class Regions:
    """What a first stage finds in normalized pixels, as the second stage is fed it: for its calibration, by torchvision's own code."""

    def __init__(self, first: Path):
        from .quantize import session

        if pyramid_family(first) != "faster_rcnn":
            raise Refused(f"{first} is no first stage of Faster R-CNN; `export` writes it beside the box head")
        self.session = session(first)
        # torchvision's numbers; its own proposal network and pooling, with a head that is the session.
        anchors = detection.anchor_utils.AnchorGenerator(tuple((s,) for s in (32, 64, 128, 256, 512)), ((0.5, 1.0, 2.0),) * LEVELS)
        limits = {"training": 1000, "testing": 1000}
        self.rpn = detection.rpn.RegionProposalNetwork(anchors, self.heads, 0.7, 0.3, 256, 0.5, limits, limits, 0.7).eval()
        self.pool = ops.MultiScaleRoIAlign([str(level) for level in range(LEVELS - 1)], REGION, 2)

    def heads(self, _: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        names = [[f"{what}_{level}" for level in range(LEVELS)] for what in ("objectness", "bbox_pred")]
        return tuple([self.found[n] for n in each] for each in names)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """f32 [1, 3, height, width] -> [regions, channels, 7, 7], the likeliest first."""
        said = self.session.run(None, {self.session.get_inputs()[0].name: x})
        self.found = {o.name: torch.from_numpy(v) for o, v in zip(self.session.get_outputs(), said)}
        maps = {str(level): self.found[f"feature_{level}"] for level in range(LEVELS - 1)}
        size = x.shape[2:]
        pictures = detection.image_list.ImageList(torch.from_numpy(x), [size])
        # The proposal network looks at shapes alone; its coarsest level is not among the maps.
        grids = dict(maps, pool=self.found[f"objectness_{LEVELS - 1}"])
        with torch.inference_mode():
            proposals, _ = self.rpn(pictures, grids)
            return self.pool(maps, proposals, [size]).numpy()


def feeds(first: Path, second: Path, pictures: Pictures, normalize: Normalization) -> Iterator[dict]:
    """A second stage's inputs for pictures: of each its likeliest regions, as many as the graph takes at a time."""
    shape = [d.dim_value for d in onnx.load(second).graph.input[0].type.tensor_type.shape.dim]
    name, regions = onnx.load(second).graph.input[0].name, Regions(first)
    for i in range(len(pictures)):
        found = regions(normalize(pictures.images[i : i + 1]))[: shape[0]]
        batch = np.zeros(shape, np.float32)
        batch[: len(found)] = found
        yield {name: batch}
