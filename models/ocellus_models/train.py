"""Training: SGD with a one-cycle schedule, checkpoints, resume."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from . import resnet
from .data import IMAGENET, Pictures
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


def augmented(images: Tensor, chosen: Tensor, recipe: Recipe, size: tuple[int, int], rng: torch.Generator) -> Tensor:
    """Some padded u8 [N, H, W, 3] pictures -> crops, perhaps mirrored."""
    n, (height, width), edge = len(chosen), size, 2 * recipe.crop_padding + 1
    rows = torch.randint(edge, (n, 1), generator=rng) + torch.arange(height)
    columns = torch.randint(edge, (n, 1), generator=rng) + torch.arange(width)
    if recipe.flip:
        mirror = torch.rand(n, 1, generator=rng) < 0.5
        columns = torch.where(mirror, columns.flip(1), columns)
    return images[chosen[:, None, None], rows[:, :, None], columns[:, None, :]]


def tensor(images: Tensor) -> Tensor:
    """u8 [N, H, W, 3] -> normalized f32 [N, 3, H, W] in channels-last memory."""
    x = (images.float() * IMAGENET.scale - MEAN) / STD
    return x.permute(0, 3, 1, 2)


def padded(images: np.ndarray, by: int) -> Tensor:
    return torch.from_numpy(np.pad(images, ((0, 0), (by, by), (by, by), (0, 0)), mode="reflect"))


@torch.inference_mode()
def accuracy(model: torch.nn.Module, pictures: Pictures, batch: int = 250) -> float:
    model.eval()
    right = 0
    for i in range(0, len(pictures), batch):
        logits = model(tensor(torch.from_numpy(pictures.images[i : i + batch])))
        right += int((logits.argmax(1).numpy() == pictures.labels[i : i + batch]).sum())
    return right / len(pictures)


def load(path: Path) -> tuple[resnet.ResNet, dict]:
    """A checkpoint's network, in eval mode, and everything else that is in it."""
    if not path.is_file():
        raise Refused(f"{path} is not there: run `train` first, or give another --checkpoint")
    saved = torch.load(path, weights_only=True)
    model = resnet.ResNet(resnet.Config.from_dict(saved["config"]))
    model.load_state_dict(saved["model"])
    return model.eval(), saved


def train(cfg: resnet.Config, recipe: Recipe, training: Pictures, held_out: Pictures, out: Path) -> Path:
    """Trains `cfg` into `out/checkpoint.pt`, going on from there if it exists; returns its path."""
    size = training.images.shape[1:3]
    if tuple(size) != tuple(cfg.input_size):
        raise Refused(f"the pictures are {size[1]}x{size[0]}, the network wants {cfg.input_size[1]}x{cfg.input_size[0]}")
    if cfg.classes != len(training.names):
        raise Refused(f"the pictures have {len(training.names)} classes, the network {cfg.classes}")
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(recipe.seed)
    rng = torch.Generator().manual_seed(recipe.seed)
    model = resnet.ResNet(cfg).to(memory_format=torch.channels_last)
    # No decay on biases and batch norm: they do not overfit.
    decayed = [p for p in model.parameters() if p.ndim > 1]
    free = [p for p in model.parameters() if p.ndim <= 1]
    optimizer = torch.optim.SGD(
        [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": free}],
        lr=recipe.peak_rate,
        momentum=recipe.momentum,
        nesterov=True,
    )
    steps = len(training) // recipe.batch
    if steps == 0:
        raise Refused(f"{len(training)} pictures do not fill one batch of {recipe.batch}; lower --batch")
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

    images, labels = padded(training.images, recipe.crop_padding), torch.from_numpy(training.labels)
    for epoch in range(start, recipe.epochs):
        began = time.monotonic()
        model.train()
        order = torch.randperm(len(labels), generator=rng)
        losses = []
        for step in tqdm(range(steps), desc=f"epoch {epoch + 1}/{recipe.epochs}", disable=None, leave=False):
            chosen = order[step * recipe.batch : (step + 1) * recipe.batch]
            x = tensor(augmented(images, chosen, recipe, cfg.input_size, rng))
            if recipe.brightness:
                # On normalized values: black is -MEAN / STD.
                factor = 1 + recipe.brightness * (2 * torch.rand(len(x), 1, 1, 1, generator=rng) - 1)
                black = -(MEAN / STD).view(1, 3, 1, 1)
                x = (x - black) * factor + black
            with torch.autocast("cpu", torch.bfloat16, enabled=recipe.precision == "bf16"):
                logits = model(x)
            loss = torch.nn.functional.cross_entropy(
                logits.float(), labels[chosen], label_smoothing=recipe.label_smoothing
            )
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
            "held_out_accuracy": round(accuracy(model, held_out), 4),
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
                "names": training.names,
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
