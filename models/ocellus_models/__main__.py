"""`python -m ocellus_models STEP`: one command a step."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .errors import Refused


def train(a: argparse.Namespace) -> None:
    import torch

    from . import data, resnet, train as training

    if a.threads:
        torch.set_num_threads(a.threads)
    recipe = training.Recipe(
        epochs=a.epochs, batch=a.batch, peak_rate=a.peak_rate, precision=a.precision, seed=a.seed
    )
    match a.what:
        case "cifar10":
            cfg = resnet.cifar(a.depth or 20)
            pictures = [data.jpeg_archive(a.data / f"{part}.npz") for part in ("train", "test")]
        case "scene":
            from . import scene

            cfg = resnet.scene()
            recipe.crop_padding = 3
            drawn = a.out / "frames"
            pictures = [
                scene.cached(drawn, "training", scene.TRAINING),
                scene.cached(drawn, "held-out", scene.HELD_OUT),
            ]
    checkpoint = training.train(cfg, recipe, *pictures, a.out)
    print(f"wrote {checkpoint}")


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="ocellus_models", description="Residual networks for Ocellus.")
    steps = p.add_subparsers(dest="step", required=True)

    s = steps.add_parser("train", help="train a network; goes on from its last checkpoint")
    s.add_argument("what", choices=["cifar10", "scene"])
    s.add_argument("--data", type=Path)
    s.add_argument("--out", type=Path, required=True, help="folder for checkpoint.pt and log.jsonl")
    s.add_argument("--depth", type=int)
    s.add_argument("--epochs", type=int, default=24)
    s.add_argument("--batch", type=int, default=128)
    s.add_argument("--peak-rate", type=float, default=0.3)
    s.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    s.add_argument("--seed", type=int, default=1)
    s.add_argument("--threads", type=int, help="default: all cores")
    s.set_defaults(run=train)
    return p


def main() -> int:
    a = parser().parse_args()
    try:
        a.run(a)
    except Refused as e:
        print(f"error: {e}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
