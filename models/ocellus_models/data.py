"""Pictures in memory, as the networks' input size wants them: u8, [N, height, width, 3], RGB."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from .errors import Refused

# Of 0-to-1 pixels, RGB: ImageNet's, used for every network here so that manifests need no thought.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp"}


@dataclass
class Pictures:
    """Labelled pictures of one size."""

    images: np.ndarray
    """u8, [N, height, width, 3], RGB"""
    labels: np.ndarray
    """i64, [N]"""
    names: list[str]
    """The classes."""

    def __len__(self) -> int:
        return len(self.labels)

    def sample(self, count: int, seed: int) -> "Pictures":
        """`count` of them, chosen by chance."""
        chosen = np.random.default_rng(seed).permutation(len(self))[:count]
        return Pictures(self.images[chosen], self.labels[chosen], self.names)


def normalized(images: np.ndarray) -> np.ndarray:
    """u8 [N, H, W, 3] -> f32 [N, 3, H, W], as the firmware does it: (pixel / 255 - mean) / std."""
    x = images.astype(np.float32) * np.float32(1 / 255)
    x = (x - np.array(MEAN, np.float32)) / np.array(STD, np.float32)
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2))


def jpeg_archive(path: Path) -> Pictures:
    """An `.npz` of `jpeg` (all files' bytes), `offset` (N + 1), `label`, `names`."""
    if not path.is_file():
        raise Refused(f"{path} is not there; give the folder of train.npz and test.npz with --data")
    with np.load(path) as z:
        missing = {"jpeg", "offset", "label", "names"} - set(z.files)
        if missing:
            raise Refused(f"{path} lacks {', '.join(sorted(missing))}: not an archive of JPEG files")
        data, offset = z["jpeg"].tobytes(), z["offset"]
        labels, names = z["label"].astype(np.int64), [str(n) for n in z["names"]]
    images = [
        np.asarray(Image.open(io.BytesIO(data[a:b])).convert("RGB"))
        for a, b in tqdm(list(zip(offset[:-1], offset[1:])), desc=f"reading {path.name}", disable=None)
    ]
    return Pictures(np.stack(images), labels, names)


def fit(image: Image.Image, size: tuple[int, int], short_side: int | None) -> np.ndarray:
    """A picture brought to `size` (height, width): short side and centre crop, or stretched if `short_side` is None.

    Pillow's antialiased bilinear resize: what the firmware computes.
    """
    height, width = size
    image = image.convert("RGB")
    if short_side is None:
        return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
    w, h = image.size
    if w < h:
        w, h = short_side, int(short_side * h / w)
    else:
        w, h = int(short_side * w / h), short_side
    image = image.resize((w, h), Image.Resampling.BILINEAR)
    x, y = round((w - width) / 2), round((h - height) / 2)
    return np.asarray(image.crop((x, y, x + width, y + height)))


def folder(path: Path, size: tuple[int, int], short_side: int | None) -> Pictures:
    """`path/CLASS/picture.jpg`; classes in alphabetical order. All pictures are held in memory."""
    classes = sorted(p.name for p in path.iterdir() if p.is_dir()) if path.is_dir() else []
    if not classes:
        raise Refused(f"{path} has no folders; put the pictures of each class into a folder of its name")
    images, labels = [], []
    for label, name in enumerate(classes):
        files = sorted(p for p in (path / name).iterdir() if p.suffix.lower() in SUFFIXES)
        if not files:
            raise Refused(f"{path / name} has no pictures ({', '.join(sorted(SUFFIXES))})")
        for file in tqdm(files, desc=name, disable=None, leave=False):
            images.append(read(file, size, short_side))
            labels.append(label)
    return Pictures(np.stack(images), np.array(labels, np.int64), classes)


def read(file: Path, size: tuple[int, int], short_side: int | None) -> np.ndarray:
    try:
        with Image.open(file) as image:
            return fit(image, size, short_side)
    except OSError as e:
        raise Refused(f"{file} is no picture that can be read: {e}") from e


def unlabelled(path: Path, size: tuple[int, int], short_side: int | None) -> Pictures:
    """All pictures below `path`: for calibration."""
    files = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES) if path.is_dir() else []
    if not files:
        raise Refused(f"{path} has no pictures ({', '.join(sorted(SUFFIXES))})")
    images = [read(f, size, short_side) for f in tqdm(files, desc=str(path), disable=None, leave=False)]
    return Pictures(np.stack(images), np.zeros(len(images), np.int64), ["?"])
