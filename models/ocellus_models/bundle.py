"""A quantized ONNX file -> a bundle: model.onnx, model.toml, labels.txt, golden input and output, and its card."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from string import Template

import numpy as np
import onnx
from PIL import Image, ImageDraw

from . import boxes, card, manifest
from .data import BoxedPictures, Normalization, Pictures, fit
from .errors import Refused
from .quantize import detections, predictions

CARDS = Path(__file__).parent / "cards"
GOLDEN_CANDIDATES = 64
PYRAMID_CANDIDATES = 8
"""The same for large detectors: each takes seconds."""
PYRAMID_STEPS = 9.0
"""What rounding may do to them: they are deeper than classifiers. Random weights were off by 5 steps."""
MOST_CLASSES_SHOWN = 40
"""With more, a confusion matrix cannot be read and is left out."""


def bundle(
    out: Path,
    float_model: Path,
    model: Path,
    test: Pictures,
    about: manifest.About,
    template: str,
    facts: dict[str, str],
    golden: np.ndarray | None = None,
    beside: list[Path] | None = None,
) -> None:
    """Writes the folder `out`.

    `template`: a file in `cards`. `facts`: what it asks for besides what is measured here. `golden`: pictures to choose the
    golden input from; test pictures if None. `beside`: other ONNX files, measured on the same pictures for the card.
    """
    check(float_model, "export", test)
    check(model, "quantize", test)
    said = predictions(model, test, about.normalize)
    right = {"int8": said, "float": predictions(float_model, test, about.normalize)}
    right |= {p.stem: predictions(p, test, about.normalize) for p in beside or []}
    top1 = {name: float((classes == test.labels).mean()) for name, classes in right.items()}
    matrix = card.confusion(test.labels, said, len(test.names))

    start(out, model, test.names)
    if golden is None:
        golden = test.sample(GOLDEN_CANDIDATES, seed=3).images
    manifest.write(out, golden, about, manifest.Tested("top1", top1["int8"], top1["float"], len(test), facts["tested_on"]))
    confusion = ""
    if len(test.names) <= MOST_CLASSES_SHOWN:
        card.confusion_picture(matrix, test.names, out / "confusion.png")
        confusion = "![confusion matrix](confusion.png)"
    described = facts | {
        "beside": "\n".join(f"| {p.name} | {100 * top1[p.stem]:.2f} |" for p in beside or []),
        "table": card.class_table(matrix, test.names),
        "confusion": confusion,
    }
    finish(out, float_model, model, test, about, template, described, f"{len(test.names)} logits", top1)
    for name, share in top1.items():
        print(f"{100 * share:6.2f} % of {len(test)} pictures: {name}")
    print(f"wrote {out}")


def bundle_detector(
    out: Path,
    float_model: Path,
    model: Path,
    test: BoxedPictures,
    about: manifest.About,
    template: str,
    facts: dict[str, str],
    golden: np.ndarray,
) -> None:
    """The same for a detector."""
    classes = len(test.names)
    cells = len(boxes.cells(test.images.shape[1:3]))
    shape = [1, cells, 5 + classes]
    check(float_model, "export", test, shape)
    check(model, "quantize", test, shape)
    said = {"int8": detections(model, test, about.normalize), "float": detections(float_model, test, about.normalize)}
    areas = {name: boxes.average_precision(d, test.objects, classes) for name, d in said.items()}
    ap50 = {name: float(a.mean()) for name, (a, _) in areas.items()}
    by_class, counts = areas["int8"]
    rows = [
        f"| {name} | {n} | {100 * a:.1f} % | {100 * f:.1f} % |"
        for name, n, a, f in zip(test.names, counts, by_class, areas["float"][0])
    ]
    header = ["| class | objects | AP50, int8 | AP50, float |", "|---|---|---|---|"]

    start(out, model, test.names)
    tested = manifest.Tested("ap50", ap50["int8"], ap50["float"], len(test), facts["tested_on"])
    manifest.write(out, golden, about, tested, {"family": "yolox"})
    described = facts | {"objects": f"{int(counts.sum()):,}", "table": "\n".join(header + rows)}
    finish(out, float_model, model, test, about, template, described, f"{cells} × {5 + classes}", ap50)
    for name, share in ap50.items():
        print(f"AP50 {100 * share:6.2f} % of {len(test)} pictures: {name}")
    print(f"wrote {out}")


def pyramid_family(model: Path) -> str | None:
    """The firmware's name for one of torchvision's detectors, as `pyramid` exports them; None for another graph."""
    names = {o.name for o in onnx.load(model).graph.output}
    if "cls_logits_0" in names:
        return "retinanet"
    return "faster_rcnn" if "objectness_0" in names else None


def bundle_pyramid(
    out: Path, model: Path, box_head: Path | None, names: list[str] | None, pictures: Pictures, about: manifest.About
) -> None:
    """The same for torchvision's detectors, of `pyramid`. `names`: of the classes; COCO's, if None and there are as many."""
    from . import pyramid

    detect = {"family": pyramid_family(model) or ""}
    if (detect["family"] == "faster_rcnn") != (box_head is not None):
        raise Refused(f"{model} is of {detect['family']}: the graph of Faster R-CNN alone wants --box-head, the second file of `export`")
    start(out, model, pyramid.labels(model, box_head, names))
    if box_head:
        shutil.copyfile(box_head, out / "box_head.onnx")
        digest = hashlib.sha256(box_head.read_bytes()).hexdigest()
        detect |= {"box_head": "box_head.onnx", "box_head_sha256": digest}
    about.pads = True
    manifest.write(out, pictures.sample(PYRAMID_CANDIDATES, seed=3).images, about, None, detect, PYRAMID_STEPS)
    files = [p for p in (model, box_head) if p]
    quantized = any(n.op_type == "DequantizeLinear" for n in onnx.load(model).graph.node)
    height, width = input_size(model)
    text = Template((CARDS / "pyramid.md").read_text()).substitute(
        id=about.id,
        licence=about.licence,
        origin=about.origin,
        network=f"{detect['family']}, {width}×{height} RGB",
        form="ONNX, QDQ: activations u8, weights s8 per output channel" if quantized else "ONNX, float",
        kib=f"{sum(p.stat().st_size for p in files) / 1024:.0f}",
    )
    (out / "README.md").write_text(text)
    print(f"wrote {out}")


def start(out: Path, model: Path, names: list[str]) -> None:
    """The folder with the model and its labels."""
    out.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(model, out / "model.onnx")
    (out / "labels.txt").write_text("".join(f"{name}\n" for name in names))


def finish(
    out: Path,
    float_model: Path,
    model: Path,
    test: Pictures | BoxedPictures,
    about: manifest.About,
    template: str,
    described: dict[str, str],
    output: str,
    measured: dict[str, float],
) -> None:
    """The card. `described`: what the template asks for of its own; `output`: what comes out, in words; `measured`: shares of `int8` and `float`."""
    macs, parameters = card.cost(float_model)
    text = Template((CARDS / template).read_text()).substitute(
        described,
        id=about.id,
        licence=about.licence,
        origin=about.origin,
        input=f"{test.images.shape[2]}×{test.images.shape[1]} RGB in, {output} out",
        kib=f"{model.stat().st_size / 1024:.0f}",
        parameters=f"{parameters:,}",
        macs=f"{macs / 1e6:.1f}",
        int8=f"{100 * measured['int8']:.2f}",
        float=f"{100 * measured['float']:.2f}",
        count=f"{len(test):,}",
    )
    (out / "README.md").write_text(text)


def check(model: Path, step: str, test: Pictures | BoxedPictures, output: list[int] | None = None) -> None:
    """The labels, the pictures and the graph fit each other. `output`: its shape, if it is no classifier's."""
    if not model.is_file():
        raise Refused(f"{model} is not there: run `{step}` first")
    graph = onnx.load(model).graph
    inputs = [d.dim_value for d in graph.input[0].type.tensor_type.shape.dim]
    outputs = [d.dim_value for d in graph.output[0].type.tensor_type.shape.dim]
    wanted = [1, 3, *test.images.shape[1:3]]
    if inputs != wanted:
        raise Refused(f"{model} wants {inputs}, the pictures are {wanted}")
    if outputs != (output or [1, len(test.names)]):
        raise Refused(f"{model} gives {outputs}, but there are {len(test.names)} labels")


def boxed_sheet(
    model: Path, normalize: Normalization, pictures: list[np.ndarray], names: list[str], out: Path, columns: int
) -> None:
    """Pictures side by side with what the model finds in them."""
    with_boxes = []
    for picture in pictures:
        image = Image.fromarray(picture)
        size = input_size(model)
        fed = BoxedPictures(fit(image, size, None)[None], [np.zeros((0, 5))], names)
        draw = ImageDraw.Draw(image)
        for score, cls, *corners in detections(model, fed, normalize, threshold=0.5)[0]:
            x0, y0, x1, y1 = (c * s for c, s in zip(corners, image.size * 2))
            draw.rectangle([x0, y0, x1, y1], outline=(255, 220, 0), width=2)
            draw.text((x0 + 4, y0 + 2), f"{names[int(cls)]} {100 * score:.0f} %", fill=(255, 220, 0))
        with_boxes.append(np.asarray(image))
    sheet(with_boxes, out, columns)


def input_size(model: Path) -> tuple[int, int]:
    """Height and width of what it wants."""
    dims = [d.dim_value for d in onnx.load(model).graph.input[0].type.tensor_type.shape.dim]
    if len(dims) != 4 or dims[1] != 3:
        raise Refused(f"{model} wants {dims}, not [1, 3, height, width]")
    return dims[2], dims[3]


def sheet(pictures: list[np.ndarray], out: Path, columns: int) -> None:
    """Pictures side by side, as JPEG."""
    h, w = pictures[0].shape[:2]
    rows = -(-len(pictures) // columns)
    picture = Image.new("RGB", (columns * w, rows * h), "white")
    for i, p in enumerate(pictures):
        picture.paste(Image.fromarray(p), ((i % columns) * w, (i // columns) * h))
    picture.save(out, quality=82)
