"""Training: SGD with a one-cycle schedule, checkpoints, resume."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from . import boxes, detector, resnet
from .data import IMAGENET, BoxedPictures, Pictures
from .errors import Refused


@dataclass
class Recipe:
    """How a network is trained. Saved with every checkpoint; a resumed run must have the same."""

    epochs: int
    batch: int = 128
    peak_rate: float = 0.3
    momentum: float = 0.9
    weight_decay: float = 5e-4
    label_smoothing: float = 0.0
    crop_padding: int = 4
    """Random crops of the picture with so many pixels added at each edge (reflected)."""
    flip: bool = True
    brightness: float = 0.0
    """Random factor between 1 - brightness and 1 + brightness."""
    precision: str = "fp32"
    """`bf16`: convolutions in bfloat16 where the CPU has it; about 1.6 times as fast with AVX512-BF16."""
    seed: int = 1


CHECKPOINT = "checkpoint.pt"
MEAN, STD = torch.tensor(IMAGENET.mean), torch.tensor(IMAGENET.std)


@dataclass
class Crop:
    """Which part of each padded picture is taken."""

    top: Tensor
    """Rows that are left out above, [N, 1]; likewise `left`."""
    left: Tensor
    mirror: Tensor
    """Whether it is mirrored, [N, 1]."""

    @staticmethod
    def random(n: int, recipe: Recipe, rng: torch.Generator) -> "Crop":
        edge = 2 * recipe.crop_padding + 1
        top, left = (torch.randint(edge, (n, 1), generator=rng) for _ in range(2))
        mirror = torch.rand(n, 1, generator=rng) < 0.5 if recipe.flip else torch.zeros(n, 1, dtype=torch.bool)
        return Crop(top, left, mirror)

    def of(self, images: Tensor, chosen: Tensor, size: tuple[int, int]) -> Tensor:
        """These of padded u8 [N, H, W, 3] pictures."""
        rows, columns = self.top + torch.arange(size[0]), self.left + torch.arange(size[1])
        columns = torch.where(self.mirror, columns.flip(1), columns)
        return images[chosen[:, None, None], rows[:, :, None], columns[:, None, :]]


def tensor(images: Tensor) -> Tensor:
    """u8 [N, H, W, 3] -> normalized f32 [N, 3, H, W] in channels-last memory."""
    x = (images.float() * IMAGENET.scale - MEAN) / STD
    return x.permute(0, 3, 1, 2)


def padded(images: np.ndarray, by: int) -> Tensor:
    return torch.from_numpy(np.pad(images, ((0, 0), (by, by), (by, by), (0, 0)), mode="reflect"))


def relit(x: Tensor, recipe: Recipe, rng: torch.Generator) -> Tensor:
    """Normalized pictures, each darker or brighter by chance."""
    if not recipe.brightness:
        return x
    factor = 1 + recipe.brightness * (2 * torch.rand(len(x), 1, 1, 1, generator=rng) - 1)
    # Black is -MEAN / STD.
    black = -(MEAN / STD).view(1, 3, 1, 1)
    return (x - black) * factor + black


@torch.inference_mode()
def accuracy(model: nn.Module, pictures: Pictures, batch: int = 250) -> float:
    model.eval()
    right = 0
    for i in range(0, len(pictures), batch):
        logits = model(tensor(torch.from_numpy(pictures.images[i : i + batch])))
        right += int((logits.argmax(1).numpy() == pictures.labels[i : i + batch]).sum())
    return right / len(pictures)


@torch.inference_mode()
def ap50(model: detector.Detector, pictures: BoxedPictures, batch: int = 250) -> float:
    model.eval()
    said = []
    for i in range(0, len(pictures), batch):
        outputs = model(tensor(torch.from_numpy(pictures.images[i : i + batch]))).numpy()
        said += [boxes.found(o, model.cfg.backbone.input_size, 0.02) for o in outputs]
    return float(boxes.average_precision(said, pictures.objects, len(pictures.names))[0].mean())


class Objective(Protocol):
    """What a network is trained to do, and the pictures for it."""

    def __len__(self) -> int:
        """How many pictures there are."""

    def loss(self, model: nn.Module, chosen: Tensor, recipe: Recipe, rng: torch.Generator) -> Tensor:
        """Of a batch: these of the pictures."""

    def judge(self, model: nn.Module) -> dict[str, float]:
        """How good it is on pictures that were held out, by name."""


class Classification:
    def __init__(self, training: Pictures, held_out: Pictures, recipe: Recipe):
        self.size, self.held_out = training.images.shape[1:3], held_out
        self.images, self.labels = padded(training.images, recipe.crop_padding), torch.from_numpy(training.labels)

    def __len__(self) -> int:
        return len(self.labels)

    def loss(self, model: nn.Module, chosen: Tensor, recipe: Recipe, rng: torch.Generator) -> Tensor:
        crop = Crop.random(len(chosen), recipe, rng)
        x = relit(tensor(crop.of(self.images, chosen, self.size)), recipe, rng)
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe.precision == "bf16"):
            logits = model(x)
        return nn.functional.cross_entropy(logits.float(), self.labels[chosen], label_smoothing=recipe.label_smoothing)

    def judge(self, model: nn.Module) -> dict[str, float]:
        return {"held_out_accuracy": accuracy(model, self.held_out)}


class Detection:
    def __init__(self, training: BoxedPictures, held_out: BoxedPictures):
        self.size, self.training, self.held_out = training.images.shape[1:3], training, held_out

    def __len__(self) -> int:
        return len(self.training)

    def loss(self, model: nn.Module, chosen: Tensor, recipe: Recipe, rng: torch.Generator) -> Tensor:
        n, (height, width), by = len(chosen), self.size, recipe.crop_padding
        crop = Crop.random(n, recipe, rng)
        # A batch at a time: a padded copy of all would be as large as they are.
        images = padded(self.training.images[chosen.numpy()], by)
        x = relit(tensor(crop.of(images, torch.arange(n), self.size)), recipe, rng)
        objects = detector.in_pixels([self.training.objects[i] for i in chosen.tolist()], self.size)
        picture = objects[:, 0].long()
        moved = torch.cat([by - crop.left[picture], by - crop.top[picture]], 1)
        objects[:, 2:] += moved.repeat(1, 2)
        mirror = crop.mirror[picture]
        objects[:, [2, 4]] = torch.where(mirror, width - objects[:, [4, 2]], objects[:, [2, 4]])
        objects[:, [2, 4]] = objects[:, [2, 4]].clamp(0, width)
        objects[:, [3, 5]] = objects[:, [3, 5]].clamp(0, height)
        # What is left of a thing at the edge may be a sliver, or nothing.
        seen = (objects[:, 4:] - objects[:, 2:4]).amin(1) >= 2
        return detector.loss(model, x, objects[seen], torch.bfloat16 if recipe.precision == "bf16" else None)

    def judge(self, model: nn.Module) -> dict[str, float]:
        return {"held_out_ap50": ap50(model, self.held_out)}


def build(config: dict) -> nn.Module:
    """The network of a checkpoint's `config`."""
    if "backbone" in config:
        return detector.Detector(detector.Config.from_dict(config))
    return resnet.ResNet(resnet.Config.from_dict(config))


def load(path: Path) -> tuple[nn.Module, dict]:
    """A checkpoint's network, in eval mode, and everything else that is in it."""
    if not path.is_file():
        raise Refused(f"{path} is not there: run `train` first, or give another --checkpoint")
    saved = torch.load(path, weights_only=True)
    model = build(saved["config"])
    model.load_state_dict(saved["model"])
    return model.eval(), saved


def train(
    cfg: resnet.Config | detector.Config,
    recipe: Recipe,
    training: Pictures | BoxedPictures,
    held_out: Pictures | BoxedPictures,
    out: Path,
) -> Path:
    """Trains `cfg` into `out/checkpoint.pt`, going on from there if it exists; returns its path."""
    size, network = training.images.shape[1:3], getattr(cfg, "backbone", cfg)
    if tuple(size) != tuple(network.input_size):
        raise Refused(
            f"the pictures are {size[1]}x{size[0]}, the network wants {network.input_size[1]}x{network.input_size[0]}"
        )
    if network.classes != len(training.names):
        raise Refused(f"the pictures have {len(training.names)} classes, the network {network.classes}")
    if isinstance(cfg, detector.Config):
        objective: Objective = Detection(training, held_out)
    else:
        objective = Classification(training, held_out, recipe)
    return fit(cfg, recipe, objective, training.names, out)


def fit(cfg: resnet.Config | detector.Config, recipe: Recipe, objective: Objective, names: list[str], out: Path) -> Path:
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(recipe.seed)
    rng = torch.Generator().manual_seed(recipe.seed)
    model = build(cfg.to_dict()).to(memory_format=torch.channels_last)
    # No decay on biases and batch norm: they do not overfit.
    decayed = [p for p in model.parameters() if p.ndim > 1]
    free = [p for p in model.parameters() if p.ndim <= 1]
    optimizer = torch.optim.SGD(
        [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": free}],
        lr=recipe.peak_rate,
        momentum=recipe.momentum,
        nesterov=True,
    )
    steps = len(objective) // recipe.batch
    if steps == 0:
        raise Refused(f"{len(objective)} pictures do not fill one batch of {recipe.batch}; lower --batch")
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.peak_rate, total_steps=recipe.epochs * steps, pct_start=0.2, cycle_momentum=False
    )
    start, spent_s = 0, 0.0
    checkpoint = out / CHECKPOINT
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        if saved["recipe"] != asdict(recipe) or saved["config"] != cfg.to_dict():
            raise Refused(f"{checkpoint} is of another network or recipe; remove {out} to start again")
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        schedule.load_state_dict(saved["schedule"])
        rng.set_state(saved["rng"])
        start, spent_s = saved["epoch"], saved["spent_s"]
        print(f"going on after epoch {start} of {recipe.epochs}")

    for epoch in range(start, recipe.epochs):
        began = time.monotonic()
        model.train()
        order = torch.randperm(len(objective), generator=rng)
        losses = []
        for step in tqdm(range(steps), desc=f"epoch {epoch + 1}/{recipe.epochs}", disable=None, leave=False):
            loss = objective.loss(model, order[step * recipe.batch : (step + 1) * recipe.batch], recipe, rng)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        mean_loss = sum(losses) / len(losses)
        if not np.isfinite(mean_loss):
            raise Refused(f"the loss is no number any more in epoch {epoch + 1}; lower --peak-rate")
        spent_s += time.monotonic() - began
        line = {
            "epoch": epoch + 1,
            "loss": round(mean_loss, 4),
            **{name: round(value, 4) for name, value in objective.judge(model).items()},
            "epoch_s": round(time.monotonic() - began, 1),
        }
        print(json.dumps(line), flush=True)
        with open(out / "log.jsonl", "a") as log:
            log.write(json.dumps(line) + "\n")
        partial = checkpoint.with_suffix(".partial")
        torch.save(
            {
                "config": cfg.to_dict(),
                "recipe": asdict(recipe),
                "names": names,
                "epoch": epoch + 1,
                "spent_s": spent_s,
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "schedule": schedule.state_dict(),
                "rng": rng.get_state(),
            },
            partial,
        )
        partial.replace(checkpoint)
    return checkpoint
