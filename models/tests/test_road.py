"""The road from a network to what Ocellus computes, on small nets with random weights."""

import importlib
import json
import os
import subprocess
import tomllib
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from ocellus_models import __main__ as cli
from ocellus_models import boxes, bundle, card, data, detector, export, manifest, quantize, resnet, train
from ocellus_models.errors import Refused
from PIL import Image


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(1)


def noise(count: int, size: tuple[int, int], classes: int = 4, seed: int = 0) -> data.Pictures:
    """Blotches whose brightness and colour tell their class."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    coarse = rng.integers(0, 80, (count, 4, 4, 3)) + labels[:, None, None, None] * np.array([50, 10, -20]) + 60
    images = coarse.clip(0, 255).astype(np.uint8).repeat(size[0] // 4, 1).repeat(size[1] // 4, 2)
    return data.Pictures(images, labels.astype(np.int64), [f"class{i}" for i in range(classes)])


def settled(model: torch.nn.Module, size: tuple[int, int]) -> torch.nn.Module:
    """A random network whose batch norms have seen pictures, as trained ones have."""
    model.train()
    with torch.no_grad():
        for seed in range(4):
            model(train.tensor(torch.from_numpy(noise(8, size, seed=seed).images)))
    return model.eval()


def small(depth: int, preact: bool = False) -> resnet.Config:
    cfg = resnet.imagenet(depth, 4, preact)
    cfg.widths, cfg.input_size = [8, 16, 24, 32], (64, 64)
    return cfg


def run(path, x: np.ndarray) -> np.ndarray:
    return quantize.session(Path(path)).run(None, {export.INPUT: x})[0]


def missing(what: str) -> None:
    """Says loudly that a test does not run; fails where that must not be."""
    pytest.fail(what) if os.environ.get("OCELLUS_TEST_STRICT") else pytest.skip(what)


def module(name: str):
    try:
        return importlib.import_module(name)
    except ImportError as e:
        missing(f"{e}: pip install -r requirements.lock")


def ocellus(*arguments) -> subprocess.CompletedProcess:
    program = Path(os.environ.get("OCELLUS", Path(__file__).parents[2] / "target/release/ocellus"))
    if not program.is_file():
        missing(f"{program} is not there: cargo build --release, or say where with OCELLUS")
    return subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, timeout=120)


def ocellus_agrees(folder: Path, float_path: Path, int_path: Path, pictures: data.Pictures, normalize=data.IMAGENET) -> None:
    """Makes a bundle; Ocellus reproduces its golden output, and gives every picture the probabilities that onnxruntime does."""
    about = manifest.About(folder.name, "MIT", "random", normalize, None)
    bundle.bundle(folder, float_path, int_path, pictures, about, "own.md", {"tested_on": "noise"})
    # A hundred random layers make much of a single value that was rounded the other way; how many, depends on the machine.
    written = folder / "model.toml"
    tolerance = tomllib.loads(written.read_text())["golden"]["tolerance"]
    written.write_text(written.read_text().replace(f"tolerance = {tolerance}", f"tolerance = {4 * tolerance}"))
    checked = ocellus("check", "--offline", "--model", folder)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "golden output reproduced" in checked.stdout
    files = []
    for i, picture in enumerate(pictures.images):
        files.append(folder.parent / f"{i}.png")
        Image.fromarray(picture).save(files[-1])
    said = ocellus("classify", "--json", "--top-k", len(pictures.names), "--model", folder, *files)
    assert said.returncode == 0, said.stderr
    lines = [json.loads(line) for line in said.stdout.splitlines()]
    assert [line["image"] for line in lines] == [str(f) for f in files]
    allowed = 2 * tolerance
    near = 0
    for line, picture in zip(lines, pictures.images):
        scores = {r["label"]: r["score"] for r in line["results"]}
        ours = np.log([scores[name] for name in pictures.names])
        logits = run(int_path, normalize(picture[None]))[0].astype(np.float64)
        theirs = logits - np.log(np.exp(logits - logits.max()).sum()) - logits.max()
        difference = np.abs(ours - theirs).max()
        near += difference <= allowed
        assert difference <= 4 * allowed, (line, theirs)
    assert near >= 0.75 * len(lines)


@pytest.mark.parametrize("preact", [False, True])
@pytest.mark.parametrize("depth", [18, 34, 50, 101, 152])
def test_every_depth_is_exported_quantized_and_runs_in_ocellus(depth, preact, tmp_path):
    cfg = small(depth, preact)
    model = settled(resnet.ResNet(cfg), cfg.input_size)
    pictures = noise(16, cfg.input_size)
    float_path = export.export(model, cfg.input_size, (1, cfg.classes), tmp_path / "float.onnx")
    assert "BatchNormalization" not in {n.op_type for n in onnx.load(float_path).graph.node}
    int_path = quantize.quantize(float_path, pictures, tmp_path / "int8.onnx")
    inputs = [data.IMAGENET(pictures.images[i : i + 1]) for i in range(len(pictures))]
    with torch.inference_mode():
        expected = np.concatenate([model(torch.from_numpy(x)).numpy() for x in inputs])
    a = np.concatenate([run(float_path, x) for x in inputs])
    b = np.concatenate([run(int_path, x) for x in inputs])
    assert np.allclose(expected, a, atol=1e-3 * max(1, np.abs(a).max()))
    # Errors add up over up to 152 random layers; the quantized network still says nearly the same.
    error = np.linalg.norm(a - b) / np.linalg.norm(a)
    assert error < 0.35
    types = {i.data_type for i in onnx.load(int_path).graph.initializer if i.name.endswith("weight_quantized")}
    assert types == {onnx.TensorProto.INT8}
    ocellus_agrees(tmp_path / f"resnet{depth}", float_path, int_path, pictures)


def test_depths_have_the_parameters_of_the_papers():
    def count(cfg):
        return sum(p.numel() for p in resnet.ResNet(cfg).parameters())

    # torchvision's documentation; He et al. 2015, table 6: 0.27 M.
    assert count(resnet.imagenet(18)) == 11_689_512
    assert count(resnet.imagenet(50)) == 25_557_032
    assert round(count(resnet.cifar(20)) / 1e6, 2) == 0.27
    with pytest.raises(ValueError, match="6n"):
        resnet.cifar(19)
    with pytest.raises(ValueError, match="152"):
        resnet.imagenet(20)


def test_shortcuts_without_parameters_become_convolutions(tmp_path):
    skip = resnet.PadShortcut(16, 32, 2)
    x = torch.randn(2, 16, 8, 8)
    assert torch.equal(skip(x), export.as_convolution(skip, 16)(x))
    path = export.export(settled(resnet.ResNet(resnet.cifar(8)), (32, 32)), (32, 32), (1, 10), tmp_path / "m.onnx")
    assert {n.op_type for n in onnx.load(path).graph.node} == {"Conv", "Relu", "Add", "GlobalAveragePool", "Flatten", "Gemm"}
    # Stem 3·16·9·32²; 2 blocks of 16·16·9 at 32², 32·32·9 at 16² less its narrow first, 64·64·9 at 8² likewise.
    macs, parameters = card.cost(path)
    stage = 16 * 16 * 9 * 32 * 32
    skips = 16 * 32 * 16 * 16 + 32 * 64 * 8 * 8
    assert macs == 3 * 16 * 9 * 32 * 32 + 2 * stage + 2 * (stage + stage // 2) + skips + 640
    assert 70_000 < parameters < 90_000


@pytest.mark.parametrize("method", ["minmax", "entropy", "percentile"])
def test_calibration_and_the_layers_that_lose_most(method, tmp_path):
    cfg = resnet.Config([1, 1], [8, 16], 4, stem="half", input_size=(32, 32))
    path = export.export(settled(resnet.ResNet(cfg), (32, 32)), (32, 32), (1, 4), tmp_path / "float.onnx")
    pictures = noise(24, (32, 32))
    int8 = quantize.quantize(path, pictures, tmp_path / "int8.onnx", method)
    errors = quantize.layer_errors(path, int8, pictures.sample(4, seed=1))
    assert [e.sqnr_db for e in errors] == sorted(e.sqnr_db for e in errors)
    assert {e.op for e in errors} == {"Conv", "Add", "Gemm"}
    assert errors[0].sqnr_db > 8
    kept = quantize.quantize(path, pictures, tmp_path / "kept.onnx", method, (errors[0].node,))
    quantized = [n for n in onnx.load(kept).graph.node if n.name == errors[0].node]
    assert len(quantized) == 1 and not any("Dequantize" in i and "weight" in i for i in quantized[0].input)
    with pytest.raises(Refused, match="no node nothing"):
        quantize.quantize(path, pictures, tmp_path / "x.onnx", method, ("nothing",))


@pytest.mark.parametrize("arch", ["resnet18", "resnet50"])
def test_torchvision(arch, tmp_path):
    module("torchvision")
    weights = tmp_path / "weights.pt"
    torch.manual_seed(3)
    import torchvision

    original = settled(torchvision.models.get_model(arch, weights=None, num_classes=4), (64, 64))
    torch.save({"state_dict": {f"module.{k}": v for k, v in original.state_dict().items()}}, weights)
    path = export.export(export.torchvision_model(arch, 4, weights), (64, 64), (1, 4), tmp_path / "m.onnx")
    x = data.IMAGENET(noise(1, (64, 64)).images)
    with torch.inference_mode():
        assert np.allclose(original(torch.from_numpy(x)).numpy(), run(path, x), atol=1e-3)
    with pytest.raises(Refused, match="does not fit"):
        export.torchvision_model("resnet34", 4, weights)
    with pytest.raises(Refused, match="no `resnet19`"):
        export.torchvision_model("resnet19", 4, None)


@pytest.mark.parametrize("arch", ["resnet18", "resnet26d", "resnetv2_50"])
def test_timm(arch, tmp_path):
    module("timm")
    model = settled(export.timm_model(arch, 4, None), (64, 64))
    path = export.export(model, (64, 64), (1, 4), tmp_path / "m.onnx")
    assert run(path, data.IMAGENET(noise(1, (64, 64)).images)).shape == (1, 4)


def keras_network(keras, first=()):
    """A small residual network as Keras's users write them: `same` edges, a projection, a softmax at the end."""
    k = keras.layers
    keras.utils.set_random_seed(1)

    def norm(x):
        return k.BatchNormalization(moving_mean_initializer="random_normal", gamma_initializer="random_uniform")(x)

    x = start = keras.Input((64, 64, 3))
    for layer in first:
        x = layer(x)
    x = k.ReLU()(norm(k.Conv2D(8, 7, strides=2, padding="same", use_bias=False)(x)))
    x = k.MaxPooling2D(3, strides=2, padding="same")(x)
    y = k.Activation("relu")(norm(k.Conv2D(12, 3, strides=2)(k.ZeroPadding2D(1)(x))))
    y = norm(k.Conv2D(12, 3, padding="same")(y))
    x = k.ReLU()(k.Add()([y, norm(k.Conv2D(12, 1, strides=2)(x))]))
    x = k.Dropout(0.5)(k.GlobalAveragePooling2D()(x))
    return keras.Model(start, k.Dense(4, activation="softmax", kernel_initializer=keras.initializers.RandomNormal(0, 5))(x))


def test_keras_networks_run_in_ocellus(tmp_path, capsys, monkeypatch):
    keras_models = module("ocellus_models.keras_models")
    keras = keras_models.keras
    monkeypatch.chdir(tmp_path)
    original = keras_network(keras)
    original.save("own.keras")
    assert cli.main("export --keras own.keras --out float.onnx".split()) == 0
    assert {n.op_type for n in onnx.load("float.onnx").graph.node} >= {"Conv", "MaxPool", "Add", "GlobalAveragePool", "Gemm"}
    pictures, caffe = noise(16, (64, 64)), data.NORMALIZATIONS["caffe"]
    x = caffe(pictures.images[:1])
    expected = np.asarray(original(x.transpose(0, 2, 3, 1), training=False).cpu().detach())
    got = np.exp(run("float.onnx", x).astype(np.float64))
    assert np.allclose(got / got.sum(), expected, atol=1e-4)
    int8 = quantize.quantize(Path("float.onnx"), pictures, Path("int8.onnx"), normalize=caffe)
    ocellus_agrees(tmp_path / "keras", Path("float.onnx"), int8, pictures, caffe)

    keras_network(keras, [keras.layers.Rescaling(1 / 255)]).save("scaled.keras")
    Path("broken.keras").write_bytes(b"no model")
    for name, says in [("scaled.keras", "--normalize"), ("broken.keras", "no Keras model"), ("ResNet51", "no `ResNet51`")]:
        assert cli.main(["export", "--keras", name, "--out", "x.onnx"]) == 1
        assert says in capsys.readouterr().err


def test_a_run_that_was_cut_goes_on_as_if_it_had_not(tmp_path):
    cfg = resnet.Config([1, 1], [8, 16], 4, stem="cifar", input_size=(16, 16))
    recipe = train.Recipe(epochs=3, batch=16, peak_rate=0.05, seed=5, crop_padding=2)
    sets = noise(96, (16, 16), seed=1), noise(32, (16, 16), seed=2)
    whole = torch.load(train.train(cfg, recipe, *sets, tmp_path / "whole"), weights_only=True)

    class Cut(Exception):
        pass

    def cut_after_first(*args):
        raise Cut

    original = train.accuracy
    calls = iter([original, cut_after_first])
    train.accuracy = lambda *a: next(calls)(*a)
    try:
        with pytest.raises(Cut):
            train.train(cfg, recipe, *sets, tmp_path / "cut")
    finally:
        train.accuracy = original
    resumed = torch.load(train.train(cfg, recipe, *sets, tmp_path / "cut"), weights_only=True)
    assert all(torch.equal(whole["model"][k], v) for k, v in resumed["model"].items())
    model, _ = train.load(tmp_path / "whole" / train.CHECKPOINT)
    assert train.accuracy(model, sets[1]) > 0.5
    recipe.seed = 6
    with pytest.raises(Refused, match="another network or recipe"):
        train.train(cfg, recipe, *sets, tmp_path / "cut")


def test_the_commands_on_a_folder_of_pictures(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for part in ("training", "test"):
        pictures = noise(32, (64, 48))
        for i in range(32):
            folder = tmp_path / "set" / part / pictures.names[pictures.labels[i]]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pictures.images[i]).save(folder / f"{i}.png")
    assert cli.main("train --data set --size 32 --epochs 1 --batch 16 --out run".split()) == 0
    assert cli.main("export --checkpoint run/checkpoint.pt --out float.onnx".split()) == 0
    command = "quantize --model float.onnx --calibration set/training --evaluation set/test --short-side 36 --out int8.onnx"
    assert cli.main(command.split()) == 0
    said = capsys.readouterr().out
    assert "SQNR" in said and "int8  top-1" in said and "of 32 pictures" in said
    command = "bundle --float float.onnx --int8 int8.onnx --test set/test --short-side 36 --out own"
    assert cli.main(command.split()) == 1
    assert "--licence" in capsys.readouterr().err
    assert cli.main([*command.split(), "--origin", "a \"test\"", "--licence", "MIT"]) == 0
    written = tomllib.loads(Path("own/model.toml").read_text())
    assert written["id"] == "own" and written["origin"] == 'a "test"'
    assert written["input"]["resize"] == {"short_side_crop": {"short_side": 36}}
    assert Image.open("own/golden.png").size == (32, 32)
    assert Path("own/labels.txt").read_text().split() == [f"class{i}" for i in range(4)]
    checked = ocellus("check", "--offline", "--model", "own")
    assert checked.returncode == 0 and "golden output reproduced" in checked.stdout, checked.stdout
    # Another colour order, and the self-test notices.
    text = Path("own/model.toml").read_text()
    Path("own/model.toml").write_text(text.replace('"rgb"', '"bgr"'))
    checked = ocellus("check", "--offline", "--model", "own")
    assert checked.returncode != 0 and "golden" in checked.stdout + checked.stderr
    Path("labels").write_text("class0\nclass1\n")
    assert cli.main([*command.split(), "--labels", "labels"]) == 1
    assert "is no class of the labels" in capsys.readouterr().err


def squares(count: int, seed: int) -> data.BoxedPictures:
    """Red or blue squares on noise, one, two or none in each picture."""
    rng = np.random.default_rng(seed)
    images = rng.integers(90, 130, (count, 64, 96, 3)).astype(np.uint8)
    objects = []
    for i in range(count):
        own = []
        for left in rng.permutation([0, 48])[: rng.integers(0, 3)]:
            kind, side = rng.integers(2), rng.integers(16, 40)
            x, y = left + rng.integers(0, 48 - side), rng.integers(0, 64 - side)
            images[i, y : y + side, x : x + side] = [(220, 40, 40), (40, 40, 220)][kind]
            own.append([kind, x / 96, y / 64, (x + side) / 96, (y + side) / 64])
        objects.append(np.array(own, np.float32).reshape(-1, 5))
    return data.BoxedPictures(images, objects, ["red", "blue"])


def test_a_small_detector_learns_and_runs_in_ocellus(tmp_path):
    backbone = resnet.Config([1, 1, 1, 1], [8, 8, 16, 16], 2, stem="half", input_size=(64, 96))
    recipe = train.Recipe(epochs=12, batch=16, peak_rate=0.02, crop_padding=2)
    training, test = squares(320, seed=1), squares(60, seed=2)
    checkpoint = train.train(detector.Config(backbone, 16), recipe, training, test, tmp_path / "run")
    assert cli.main(["export", "--checkpoint", str(checkpoint), "--out", str(tmp_path / "float.onnx")]) == 0
    float_path, int_path = tmp_path / "float.onnx", tmp_path / "int8.onnx"
    kept = quantize.tail(float_path)
    assert any("Sigmoid" in n for n in kept) and not any("Conv" in n for n in kept)
    quantize.quantize(float_path, training.sample(32, seed=3), int_path, keep_float=kept)
    found = quantize.detections(int_path, test)
    areas, counts = boxes.average_precision(found, test.objects, 2)
    assert areas.mean() > 0.9 and counts.sum() == sum(map(len, test.objects))
    about = manifest.About("squares", "MIT", "drawn", data.IMAGENET, None)
    facts = dict.fromkeys(["widths", "width", "training", "test_seeds", "epochs", "batch", "peak_rate", "minutes"], "0")
    facts["tested_on"] = "squares"
    bundle.bundle_detector(tmp_path / "squares", float_path, int_path, test, about, "scene_boxes.md", facts, test.images[:8])
    checked = ocellus("check", "--offline", "--model", tmp_path / "squares")
    assert checked.returncode == 0 and "golden output reproduced" in checked.stdout, checked.stdout + checked.stderr
    files = []
    for i, picture in enumerate(test.images[:20]):
        files.append(tmp_path / f"{i}.png")
        Image.fromarray(picture).save(files[-1])
    said = ocellus("detect", "--json", "--threshold", "0.3", "--model", tmp_path / "squares", *files)
    assert said.returncode == 0, said.stderr
    lines = [json.loads(line) for line in said.stdout.splitlines()]
    ours = [[[d["score"], d["index"], *d["box"]] for d in line["detections"]] for line in lines]
    ours = [np.array(o).reshape(-1, 6) for o in ours]
    areas, _ = boxes.average_precision(ours, test.objects[:20], 2)
    theirs, _ = boxes.average_precision([f[f[:, 0] >= 0.3] for f in found[:20]], test.objects[:20], 2)
    assert np.abs(areas - theirs).max() < 0.1 and areas.mean() > 0.8


def test_precision_and_suppression_by_hand():
    size, classes = (64, 96), 2
    output = np.zeros((len(boxes.cells(size)), 5 + classes), np.float32)
    # Cells 40 and 41 of stride 8: (4, 3) and (5, 3). Two pixels apart, 32 pixels wide: one hides the other.
    output[40] = [0.5, 0.5, np.log(4), np.log(4), 0.9, 1, 0]
    output[41] = [-0.25, 0.5, np.log(4), np.log(4), 0.8, 1, 0]
    (one,) = boxes.found(output, size, 0.1)
    assert np.allclose(one, [0.9, 0, 20 / 96, 12 / 64, 52 / 96, 44 / 64], atol=1e-6)
    truth = [np.array([[0, *one[2:]]]), np.array([[0, 0, 0, 0.5, 0.5]])]
    # Found, then something wrong, then the other's: precision 1 up to half of the recall, 2/3 beyond.
    said = [np.array([one]), np.array([[0.5, 0, 0.5, 0.5, 1, 1], [0.4, 0, 0, 0, 0.5, 0.5]])]
    areas, counts = boxes.average_precision(said, truth, classes)
    assert counts.tolist() == [2, 0] and np.isclose(areas[0], 0.5 + 0.5 * 2 / 3)


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("train --data nowhere --out run", "training"),
        ("train --data cifar10:nowhere --out run", "train.npz is not there"),
        ("export --checkpoint nowhere.pt --out m.onnx", "run `train` first"),
        ("export --timm resnet18xyz --out m.onnx", "timm has no"),
        ("quantize --model nowhere.onnx --calibration x --out m.onnx", "run `export` first"),
    ],
)
def test_what_is_missing_is_said(command, says, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(command.split()) == 1
    assert says in capsys.readouterr().err


def test_normalization_is_the_firmwares():
    x = data.IMAGENET(np.array([[[[0, 128, 255]]]], np.uint8))
    assert x.shape == (1, 3, 1, 1)
    assert np.allclose(x.ravel(), [-0.485 / 0.229, (128 / 255 - 0.456) / 0.224, (1 - 0.406) / 0.225], atol=1e-6)


def test_confusions_are_counted_and_shown(tmp_path):
    matrix = card.confusion(np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1]), 2)
    assert matrix.tolist() == [[1, 1], [0, 2]]
    assert "| a | 2 | 50.0 % | 100.0 % | b (1) |" in card.class_table(matrix, ["a", "b"])
    card.confusion_picture(matrix, ["a", "b"], tmp_path / "c.png")
    assert Image.open(tmp_path / "c.png").size[0] > 100
