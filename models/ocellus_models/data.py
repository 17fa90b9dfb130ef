"""Pictures in memory, as the networks' input size wants them: u8, [N, height, width, 3], RGB."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from .errors import Refused

@dataclass(frozen=True)
class Normalization:
    """What a network wants of a pixel: `(pixel * scale - mean) / std`, channels in the order `colour`."""

    colour: str
    """`rgb` or `bgr`"""
    scale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """u8 RGB [N, H, W, 3] -> f32 [N, 3, H, W], as the firmware does it."""
        x = images[..., ::-1] if self.colour == "bgr" else images
        x = x.astype(np.float32) * np.float32(self.scale)
        x = (x - np.array(self.mean, np.float32)) / np.array(self.std, np.float32)
        return np.ascontiguousarray(x.transpose(0, 3, 1, 2))


IMAGENET = Normalization("rgb", 1 / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""torchvision's, most of timm's, and that of every network trained here."""

NORMALIZATIONS = {
    "imagenet": IMAGENET,
    # Keras's names; timm calls the second one inception.
    "caffe": Normalization("bgr", 1.0, (103.939, 116.779, 123.68), (1.0, 1.0, 1.0)),
    "tf": Normalization("rgb", 1 / 127.5, (1.0, 1.0, 1.0), (1.0, 1.0, 1.0)),
    "unit": Normalization("rgb", 1 / 255, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}

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


@dataclass
class BoxedPictures:
    """Pictures of one size, with what is where."""

    images: np.ndarray
    """u8, [N, height, width, 3], RGB"""
    objects: list[np.ndarray]
    """N times f32 [objects, 5]: class, x0, y0, x1, y1; 0 to 1 of the picture."""
    names: list[str]
    """The classes."""

    def __len__(self) -> int:
        return len(self.objects)

    def sample(self, count: int, seed: int) -> "BoxedPictures":
        """`count` of them, chosen by chance."""
        chosen = np.random.default_rng(seed).permutation(len(self))[:count]
        return BoxedPictures(self.images[chosen], [self.objects[i] for i in chosen], self.names)


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


def folder(path: Path, size: tuple[int, int], short_side: int | None, names: list[str] | None = None) -> Pictures:
    """`path/CLASS/picture.jpg`. `names`: all classes in the network's order, of which some may have no folder; without, the
    folders' in alphabetical order. All pictures are held in memory."""
    folders = sorted(p for p in path.iterdir() if p.is_dir()) if path.is_dir() else []
    if not folders:
        raise Refused(f"{path} has no folders; put the pictures of each class into a folder of its name")
    if names is None:
        names = [f.name for f in folders]
    if strangers := [f.name for f in folders if f.name not in names]:
        raise Refused(f"{path} has the folder `{strangers[0]}`, which is no class of the labels; rename it as the label")
    images, labels = [], []
    for one in folders:
        files = sorted(p for p in one.iterdir() if p.suffix.lower() in SUFFIXES)
        if not files:
            raise Refused(f"{one} has no pictures ({', '.join(sorted(SUFFIXES))})")
        for file in tqdm(files, desc=one.name, disable=None, leave=False):
            images.append(read(file, size, short_side))
            labels.append(names.index(one.name))
    return Pictures(np.stack(images), np.array(labels, np.int64), names)


def read_labels(path: Path) -> list[str]:
    if not path.is_file():
        raise Refused(f"{path} is not there: --labels wants a file with one class a line, in the network's order")
    return path.read_text().rstrip().splitlines()


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
