"""Frames of the `scene` camera, drawn by Ocellus itself and brought to the network's size as its firmware would."""

from __future__ import annotations

import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from .data import BoxedPictures, Pictures, fit
from .errors import Refused

CLASSES = ["empty", "person", "car", "dog", "cat", "bird", "parcel"]
OBJECTS = CLASSES[1:]
"""What a detector names; where it finds nothing, the scene is empty."""
ROOT = Path(__file__).resolve().parents[2]
SIZE, BOXED_SIZE = (96, 96), (128, 160)
"""Height and width of the classifier's input, and of the detector's."""

# A round of all classes is 540 frames; 11 shares no factor with a visit's 90.
ROUND_FRAMES, STEP = 540, 11


@dataclass
class Seeds:
    """Which scenes a set of pictures is drawn from. No seed is in two sets; those below 1000 are in none."""

    first: int
    end: int


TRAINING = Seeds(1_000, 2_000)
HELD_OUT = Seeds(100_000, 100_100)
TEST = Seeds(200_000, 200_200)


def renderer() -> list[str]:
    return ["cargo", "run", "--release", "--locked", "--quiet", "--manifest-path", str(ROOT / "Cargo.toml"), "--example", "render_scene", "--"]


def examples(width: int = 240, height: int = 180) -> list[np.ndarray]:
    """One frame of each class, each of another seed of the test set."""
    first, found = TEST.first, {}
    with tempfile.TemporaryDirectory() as folder:
        truth = Path(folder) / "truth.tsv"
        seeds = f"--seeds={first}..{first + len(CLASSES)}"
        command = renderer() + [seeds, "--step=45", f"--size={width}x{height}", f"--truth={truth}"]
        frames = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
        for i, line in enumerate(truth.read_text().splitlines()):
            seed, _, label = line.split("\t")[:3]
            frame = np.frombuffer(frames, np.uint8, width * height * 3, i * width * height * 3)
            if label == CLASSES[int(seed) - first]:
                found[label] = frame.reshape(height, width, 3)
    return [found[name] for name in CLASSES if name in found]


def draw(seeds: Seeds, size: tuple[int, int], width: int = 640, height: int = 480) -> tuple[np.ndarray, list[list[str]]]:
    """Frames of these seeds at the network's size, and what is true of each: the fields of the renderer's line."""
    count = (seeds.end - seeds.first) * len(range(0, ROUND_FRAMES, STEP))
    images = np.empty((count, *size, 3), np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        truth = Path(folder) / "truth.tsv"
        command = renderer() + [
            f"--seeds={seeds.first}..{seeds.end}",
            f"--frames={ROUND_FRAMES}",
            f"--step={STEP}",
            f"--size={width}x{height}",
            f"--truth={truth}",
        ]
        with subprocess.Popen(command, stdout=subprocess.PIPE, bufsize=1 << 20) as process:
            for i in tqdm(range(count), desc=f"drawing seeds {seeds.first} to {seeds.end - 1}", disable=None):
                frame = process.stdout.read(width * height * 3)
                if len(frame) != width * height * 3:
                    process.kill()
                    raise Refused(f"the renderer stopped after {i} of {count} frames; try: {' '.join(command)}")
                images[i] = fit(Image.frombytes("RGB", (width, height), frame), size, None)
        return images, [line.split("\t") for line in truth.read_text().splitlines()]


def labelled(images: np.ndarray, truth: list[list[str]]) -> Pictures:
    """With the class of each; frames without one are left out."""
    labels = [line[2] for line in truth]
    known = np.array([label != "-" for label in labels])
    return Pictures(images[known], np.array([CLASSES.index(n) for n in labels if n != "-"], np.int64), CLASSES)


def boxed(images: np.ndarray, truth: list[list[str]]) -> BoxedPictures:
    """With the boxes of what is in each."""

    def read(line: list[str]) -> list[list[float]]:
        objects = [field.split(" ") for field in line[3:]]
        return [[OBJECTS.index(name), *map(float, corners)] for name, *corners in objects]

    objects = [np.array(read(line), np.float32).reshape(-1, 5) for line in truth]
    return BoxedPictures(images, objects, OBJECTS)


def cached(folder: Path, name: str, seeds: Seeds, size: tuple[int, int]) -> tuple[np.ndarray, list[list[str]]]:
    """`draw`, kept in `folder` for the next step. Remove the folder when the renderer has changed."""
    path = folder / f"{name}-{seeds.first}-{seeds.end}-{size[1]}x{size[0]}.npz"
    if path.exists():
        with np.load(path) as z:
            return z["images"], [line.split("\t") for line in z["truth"].tolist()]
    images, truth = draw(seeds, size)
    folder.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial.npz")
    np.savez(partial, images=images, truth=np.array(["\t".join(line) for line in truth]))
    partial.replace(path)
    return images, truth
