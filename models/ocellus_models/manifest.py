"""`model.toml` and the golden input: what the firmware reads of a bundle."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from .data import MEAN, STD, normalized
from .quantize import session


@dataclass
class About:
    """What a manifest says that cannot be read from the file."""

    id: str
    summary: str
    licence: str
    origin: str
    tested_on: str
    resize: str
    """`stretch`, or `short_side_crop` with the short side's length: `short_side_crop:256`."""


def write(folder: Path, golden: np.ndarray, about: About, top1: float, tested: int) -> None:
    raise NotImplementedError
