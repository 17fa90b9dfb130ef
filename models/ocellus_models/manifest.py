"""`model.toml` and the golden input: what the firmware reads of a bundle. The format: docs/models.md."""

from __future__ import annotations

import hashlib
import json
import textwrap
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from PIL import Image

from .data import Normalization
from .errors import Refused
from .quantize import session

GOLDEN = "golden.png"


@dataclass
class About:
    """What a manifest says that cannot be read from the file."""

    id: str
    licence: str
    """SPDX."""
    origin: str
    normalize: Normalization
    short_side: int | None
    """The frame's short side is brought to this, then the centre is taken; stretched to the input's size if None."""
    pads: bool = False
    """The whole frame at the top left instead, the rest 0."""


@dataclass
class Tested:
    """How the accuracy in a manifest was measured."""

    measure: str
    """`top1`, `ap50`"""
    int8: float
    """Of the quantized network, 0 to 1."""
    float: float
    pictures: int
    on: str


STEPS = 4.5
"""Of a quantized output: how far a right machine may be off."""


def tolerance(model: Path, output: np.ndarray, allowed: float = STEPS) -> float:
    """How far a right machine may be off.

    A quantized output moves in steps; machines that round differently somewhere inside may land some steps away. An output
    in float is off by little more than its rounding.
    """
    graph = onnx.load(model).graph
    values = {i.name: onnx.numpy_helper.to_array(i) for i in graph.initializer}
    makes = {o: n for n in graph.node for o in n.output}
    steps, behind = [], [graph.output[0].name]
    while behind:
        node = makes.get(behind.pop())
        if node is None:
            continue
        if node.op_type in {"Conv", "Gemm", "MatMul"}:
            steps = []
            break
        if node.op_type == "DequantizeLinear":
            steps.append(float(values[node.input[1]]))
        else:
            # What follows in float (sigmoids, concatenations) makes no step larger.
            behind += node.input
    if steps:
        return allowed * max(steps)
    return 1e-3 * max(1.0, float(np.abs(output).max()))


def golden(model: Path, pictures: np.ndarray, normalize: Normalization, steps: float = STEPS) -> tuple[np.ndarray, np.ndarray, float]:
    """A picture of u8 `pictures` [N, height, width, 3], the model's output for it, and the tolerance.

    It is the picture whose output changes most when red and blue change places, so that a machine that mixes them up fails.
    """
    s = session(model)
    name = s.get_inputs()[0].name

    def run(picture: np.ndarray) -> np.ndarray:
        return s.run(None, {name: normalize(picture[None])})[0].ravel()

    outputs = [run(p) for p in pictures]
    changes = [float(np.abs(run(p[:, :, ::-1]) - o).max()) for p, o in zip(pictures, outputs)]
    best = int(np.argmax(changes))
    allowed = tolerance(model, outputs[best], steps)
    if changes[best] <= allowed:
        raise Refused(
            f"{model} gives the same for all of {len(pictures)} pictures when red and blue change places "
            f"(within {allowed:.3g}), so it could not notice a wrong machine; is it trained?"
        )
    return pictures[best], outputs[best], allowed


def write(
    folder: Path, pictures: np.ndarray, about: About, tested: Tested | None, detect: dict[str, str] | None = None, steps: float = STEPS
) -> None:
    """Writes `golden.png` and `model.toml` beside `folder`'s model.onnx. `detect`: the keys of [detect], of a detector."""
    model = folder / "model.onnx"
    picture, output, allowed = golden(model, pictures, about.normalize, steps)
    Image.fromarray(picture).save(folder / GOLDEN, optimize=True)
    # A JSON string is a TOML string.
    tasks = ["classify", "embed"] if detect is None else ["detect"]
    keys = "".join(f"\n{key} = {json.dumps(value)}" for key, value in (detect or {}).items())
    reads = '[output]\nrole = "logits"' if detect is None else f"[detect]{keys}"
    numbers = ", ".join(f"{v:.6g}" for v in output)
    if len(output) > 100:
        # A detector's are many: each element is compared, within a tolerance that needs no more digits if it is one of steps.
        digits = 3 if allowed > 0.01 * np.abs(output).max() else 6
        numbers = "\n" + textwrap.fill(", ".join(f"{v:.{digits}g}" for v in output), 160) + "\n"
    resize = '"stretch"' if about.short_side is None else f"{{ short_side_crop = {{ short_side = {about.short_side} }} }}"
    if about.pads:
        resize = '"pad"'
    accuracy = tested and f"""\
[accuracy]
{tested.measure} = {tested.int8:.4f}
float_{tested.measure} = {tested.float:.4f}
pictures = {tested.pictures}
on = {json.dumps(tested.on)}

"""
    (folder / "model.toml").write_text(f"""\
id = {json.dumps(about.id)}
sha256 = "{hashlib.sha256(model.read_bytes()).hexdigest()}"
tasks = {json.dumps(tasks)}
licence = {json.dumps(about.licence)}
origin = {json.dumps(about.origin)}

[input]
layout = "nchw"
colour = "{about.normalize.colour}"
scale = {about.normalize.scale!r}
mean = {list(about.normalize.mean)}
std = {list(about.normalize.std)}
resize = {resize}

{reads}

{accuracy or ''}[golden]
image = "{GOLDEN}"
output = [{numbers}]
tolerance = {allowed:.4g}
""")
