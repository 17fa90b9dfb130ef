"""A quantized ONNX file -> a bundle: model.onnx, model.toml, labels.txt, golden input and output, and its card."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from string import Template

import numpy as np
import onnx
from PIL import Image

from . import card, manifest
from .data import Pictures
from .errors import Refused
from .quantize import predictions

CARDS = Path(__file__).parent / "cards"


def bundle(
    out: Path,
    float_model: Path,
    model: Path,
    test: Pictures,
    about: manifest.About,
    template: Path,
    facts: dict[str, str],
    golden: int = 0,
) -> None:
    """Writes the folder `out`. `golden`: which test picture is the golden input. `facts`: what the card's template asks for
    besides what is measured here."""
    check(model, test)
    said = predictions(model, test)
    float_said = predictions(float_model, test)
    int8, full = float((said == test.labels).mean()), float((float_said == test.labels).mean())
    matrix = card.confusion(test.labels, said, len(test.names))
    macs, parameters = card.cost(float_model)

    out.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(model, out / "model.onnx")
    (out / "labels.txt").write_text("".join(f"{name}\n" for name in test.names))
    manifest.write(out, test.images[golden], about, int8, len(test))
    card.confusion_picture(matrix, test.names, out / "confusion.png")
    text = Template(template.read_text()).substitute(
        facts,
        id=about.id,
        kib=f"{model.stat().st_size / 1024:.0f}",
        parameters=f"{parameters:,}",
        macs=f"{macs / 1e6:.1f}",
        int8=f"{100 * int8:.2f}",
        float=f"{100 * full:.2f}",
        count=f"{len(test):,}",
        table=card.class_table(matrix, test.names),
    )
    (out / "README.md").write_text(text)
    print(f"wrote {out}: int8 {100 * int8:.2f} %, float {100 * full:.2f} % of {len(test)} pictures")


def check(model: Path, test: Pictures) -> None:
    """The labels, the pictures and the graph fit each other."""
    if not model.is_file():
        raise Refused(f"{model} is not there: run `quantize` first")
    graph = onnx.load(model).graph
    inputs = [d.dim_value for d in graph.input[0].type.tensor_type.shape.dim]
    outputs = [d.dim_value for d in graph.output[0].type.tensor_type.shape.dim]
    wanted = [1, 3, *test.images.shape[1:3]]
    if inputs != wanted:
        raise Refused(f"{model} wants {inputs}, the pictures are {wanted}")
    if outputs != [1, len(test.names)]:
        raise Refused(f"{model} gives {outputs}, but there are {len(test.names)} labels")


def sheet(pictures: list[np.ndarray], out: Path, columns: int) -> None:
    """Pictures side by side, as JPEG."""
    h, w = pictures[0].shape[:2]
    rows = -(-len(pictures) // columns)
    picture = Image.new("RGB", (columns * w, rows * h), "white")
    for i, p in enumerate(pictures):
        picture.paste(Image.fromarray(p), ((i % columns) * w, (i // columns) * h))
    picture.save(out, quality=82)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
