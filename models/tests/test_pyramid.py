"""torchvision's detectors, with random weights: what Ocellus finds is what torchvision itself finds in the same tensors."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from ocellus_models import __main__ as cli
from ocellus_models import boxes, data, pyramid
from PIL import Image
from test_road import missing, ocellus

WIDTH, HEIGHT = 224, 160
CLASSES = 6
"""As torchvision counts them."""
MOST = 100
OVERLAP = 0.5
THRESHOLD = 0.3


def photographs(count: int) -> list[np.ndarray]:
    """Of COCO, stretched to the input's size; the second and third cut: what is missing is padding."""
    root = Path(os.environ.get("OCELLUS_TEST_DATA", Path(__file__).parents[3] / "shared/data"))
    files = sorted((root / "images/coco/images").glob("*.jpg"))[:count]
    if len(files) < count:
        missing(f"{root} has no images/coco: needs the test data")
    pictures = [data.read(f, (HEIGHT, WIDTH), None) for f in files]
    pictures[1:3] = [pictures[1][:130], pictures[2][:, :170]]
    return pictures


def tensor(picture: np.ndarray) -> torch.Tensor:
    """As torchvision's transform has it, for an input of a fixed size: normalized, then zeros at the right and at the bottom."""
    x = torch.zeros(1, 3, HEIGHT, WIDTH)
    h, w = picture.shape[:2]
    x[..., :h, :w] = torch.from_numpy(data.IMAGENET(picture[None]))
    return x


def spread(layer: torch.nn.Module, run, wanted: tuple[float, float]) -> None:
    """Scales the last layer of a head, so that what it writes has this mean and standard deviation."""
    written = []
    hook = layer.register_forward_hook(lambda _, __, out: written.append(out.flatten()))
    with torch.no_grad():
        run()
        hook.remove()
        mean, std = torch.cat(written).mean(), torch.cat(written).std()
        layer.weight *= wanted[1] / std
        layer.bias.copy_((layer.bias - mean) * wanted[1] / std + wanted[0])


def settled(arch: str, classes: int = CLASSES) -> torch.nn.Module:
    """Norms that have seen pictures; blocks that add little to what they are given, as trained ones do; heads that find many things, more and
    less surely."""
    torch.manual_seed(1)
    model = pyramid.build(arch, classes, None)
    for block in model.backbone.body.modules():
        if hasattr(block, "bn3"):
            torch.nn.init.constant_(block.bn3.weight, 0.3)
    x = torch.cat([tensor(p) for p in photographs(4)])
    model.backbone.train()
    with torch.no_grad():
        for _ in range(3):
            model.backbone(x)
    model.eval()
    one = x[:1]
    if "retinanet" in arch:
        def run():
            model.head(list(model.backbone(one).values()))

        spread(model.head.classification_head.cls_logits, run, (-3.5, 1.5))
        spread(model.head.regression_head.bbox_reg, run, (0, 0.2))
        return model

    def propose():
        model.rpn.head(list(model.backbone(one).values()))

    spread(model.rpn.head.cls_logits, propose, (-2, 2))
    spread(model.rpn.head.bbox_pred, propose, (0, 0.2))

    def run():
        found(model, one, (HEIGHT, WIDTH))

    spread(model.roi_heads.box_predictor.cls_score, run, (0, 1.5))
    spread(model.roi_heads.box_predictor.bbox_pred, run, (0, 0.5))
    return model


def found(model: torch.nn.Module, x: torch.Tensor, size: tuple[int, int]) -> np.ndarray:
    """What torchvision finds in a tensor of which `size` (height, width) is the picture: [N, 6] score, class, corners."""
    pictures = pyramid.detection.image_list.ImageList(x, [size])
    with torch.inference_mode():
        maps = model.backbone(x)
        if isinstance(model, pyramid.detection.RetinaNet):
            model.score_thresh, model.nms_thresh, model.detections_per_img = THRESHOLD, OVERLAP, 10 * MOST
            levels = list(maps.values())
            heads, anchors = model.head(levels), model.anchor_generator(pictures, levels)
            counts = [m.shape[2] * m.shape[3] * model.anchor_generator.num_anchors_per_location()[0] for m in levels]
            heads = {name: list(v.split(counts, 1)) for name, v in heads.items()}
            (said,) = model.postprocess_detections(heads, [list(a.split(counts)) for a in anchors], [size])
        else:
            model.roi_heads.score_thresh, model.roi_heads.nms_thresh, model.roi_heads.detections_per_img = THRESHOLD, OVERLAP, 10 * MOST
            proposals, _ = model.rpn(pictures, maps)
            (said,), _ = model.roi_heads(maps, proposals, [size])
            # Without the background.
            said["labels"] = said["labels"] - 1
    all_said = torch.cat([said["scores"][:, None], said["labels"][:, None], said["boxes"]], 1).numpy()
    # Ocellus keeps no box without an area.
    return all_said[(all_said[:, 4:] > all_said[:, 2:4]).all(1)][:MOST]


def detect(folder: Path, pictures: list[np.ndarray], model: Path) -> list[np.ndarray]:
    """The same by Ocellus, corners in pixels of the picture."""
    files = [folder / f"{i}.png" for i in range(len(pictures))]
    for file, picture in zip(files, pictures):
        Image.fromarray(picture).save(file)
    limits = ["--threshold", THRESHOLD, "--iou", OVERLAP, "--max", MOST]
    said = ocellus("detect", "--json", *limits, "--model", model, *files)
    assert said.returncode == 0, said.stderr
    out = []
    for line, picture in zip(map(json.loads, said.stdout.splitlines()), pictures, strict=True):
        h, w = picture.shape[:2]
        rows = [[d["score"], d["index"], *np.multiply(d["box"], [w, h, w, h])] for d in line["detections"]]
        out.append(np.array(rows).reshape(-1, 6))
    return out


def exported(folder: Path, arch: str, model: torch.nn.Module) -> list[Path]:
    """By the command, from a file of weights: the graph, and of Faster R-CNN the box head."""
    torch.save(model.state_dict(), folder / "weights.pt")
    command = f"export --torchvision {arch} --classes {CLASSES} --size {WIDTH}x{HEIGHT} --regions 64 --weights"
    assert cli.main([*command.split(), str(folder / "weights.pt"), "--out", str(folder / "float.onnx")]) == 0
    return [p for p in (folder / "float.onnx", folder / "float-box-head.onnx") if p.is_file()]


def bundled(folder: Path, name: str, graphs: list[Path]) -> Path:
    pictures = folder / "pictures"
    pictures.mkdir(exist_ok=True)
    for i, picture in enumerate(photographs(4)):
        Image.fromarray(picture).save(pictures / f"{i}.png")
    (folder / "labels").write_text("".join(f"class{i}\n" for i in range(1, CLASSES)))
    head = ["--box-head", str(graphs[1])] if graphs[1:] else []
    said = ["--test", str(pictures), "--labels", str(folder / "labels"), "--licence", "MIT", "--origin", "random"]
    assert cli.main(["bundle", "--int8", str(graphs[0]), *head, *said, "--out", str(folder / name)]) == 0
    checked = ocellus("check", "--offline", "--model", folder / name)
    assert checked.returncode == 0 and "golden output reproduced" in checked.stdout, checked.stdout + checked.stderr
    return folder / name


# Version 2 of both takes as long again; it was run by hand (docs/detection.md).
@pytest.fixture(scope="module", params=["retinanet_resnet50_fpn", "fasterrcnn_resnet50_fpn"])
def detector(request, tmp_path_factory) -> tuple[torch.nn.Module, list[Path], Path]:
    """A network, its graphs, and their folder."""
    folder = tmp_path_factory.mktemp(request.param)
    model = settled(request.param)
    return model, exported(folder, request.param, model), folder


def test_boxes_are_torchvisions(detector):
    model, graphs, folder = detector
    pictures = photographs(4)
    count = 0
    for ours, picture in zip(detect(folder, pictures, bundled(folder, "float", graphs)), pictures):
        theirs = found(model, tensor(picture), picture.shape[:2])
        assert len(ours) == len(theirs)
        overlaps = boxes.iou(ours[:, 2:], theirs[:, 2:]) * (ours[:, None, 1] == theirs[None, :, 1])
        which = overlaps.argmax(1)
        assert overlaps.max(1).min() >= 0.99 and sorted(which) == list(range(len(theirs)))
        scores = theirs[which, 0]
        print(
            f"{len(ours)} boxes, IoU at least {overlaps.max(1).min():.6f},"
            f" scores {ours[-1, 0]:.3f} to {ours[0, 0]:.3f}, within {np.abs(ours[:, 0] - scores).max():.6f}"
        )
        assert np.abs(ours[:, 0] - scores).max() <= 1e-3
        # In the same order, where it is not the last bits that decide.
        assert np.diff(scores).max() <= 1e-4
        count += len(ours)
    assert count >= 200


def test_the_int8_form_runs_on_integers_and_finds_the_same(detector):
    model, graphs, folder = detector
    pictures = photographs(4)
    quantized = [folder / "int8.onnx", folder / "int8-box-head.onnx"][: len(graphs)]
    for graph, out in zip(graphs, quantized):
        first = ["--first-stage", str(graphs[0])] if graph != graphs[0] else []
        command = ["quantize", "--model", str(graph), *first, "--calibration", str(folder / "pictures"), "--out", str(out)]
        assert cli.main(command) == 0
    int8 = bundled(folder, "int8", quantized)
    # The whole network, and of Faster R-CNN both.
    said = ocellus("model", "doctor", int8).stdout
    assert "100.0 % of the multiply-accumulates, run on integers" in said, said
    again, count, differences = 0, 0, []
    for ours, picture in zip(detect(folder, pictures, int8), pictures):
        theirs = found(model, tensor(picture), picture.shape[:2])
        sure = theirs[: MOST // 2]
        overlaps = boxes.iou(sure[:, 2:], ours[:, 2:]) * (sure[:, None, 1] == ours[None, :, 1])
        near = overlaps.max(1) > 0.5
        again, count = again + near.sum(), count + len(sure)
        differences += np.abs(sure[near, 0] - ours[overlaps.argmax(1)[near], 0]).tolist()
    print(f"{again} of the {count} surest boxes again, scores differ by {np.mean(differences):.4f} in the mean")
    assert again >= 0.9 * count and 0 < np.mean(differences) < 0.05


def test_a_bundle_that_lacks_or_mixes_up_its_box_head_is_refused(detector):
    _, graphs, folder = detector
    text = (bundled(folder, "whole", graphs) / "model.toml").read_text()
    if not graphs[1:]:
        cases = [('"retinanet"', '"retinanet"\nbox_head = "model.onnx"', "retinanet has no second network")]
    else:
        cases = [
            ('box_head = "box_head.onnx"\n', "", "faster_rcnn has a second network: say [detect] box_head"),
            ('"box_head.onnx"', '"model.onnx"', "its SHA-256 is"),
            ('"box_head.onnx"\nbox_head_sha256', '"model.onnx"\n# ', f"the box head takes [1, 3, {HEIGHT}, {WIDTH}]"),
        ]
    for old, new, says in cases:
        assert old in text
        (folder / "whole/model.toml").write_text(text.replace(old, new))
        said = ocellus("detect", "--model", folder / "whole", folder / "pictures/0.png")
        assert said.returncode == 78 and says in said.stderr, said.stderr


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("export --torchvision fasterrcnn_mobilenet_v3_large_fpn --out m.onnx", "no `fasterrcnn_mobilenet_v3_large_fpn` here"),
        ("export --torchvision retinanet_resnet50_fpn --size 300x256 --out m.onnx", "300x256: both sides must be multiples of 32"),
    ],
)
def test_what_cannot_be_exported_is_said(command, says, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(command.split()) == 1
    assert says in capsys.readouterr().err
