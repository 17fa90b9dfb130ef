"""Average precision at IoU 0.5 by pycocotools: python coco_ap.py MODEL COCO OURS.

COCO holds images/ and object_detection/ (YOLO's text files). OURS are lines of `ocellus detect --json`; beside them onnxruntime runs YOLOX on
Pillow's pixels, decoded in numpy. The last line printed is {"ours": AP50, "reference": [AP50 as the file is, AP50 with its float weights moved
by one unit in the last place, four times]}: where integers and floats alternate, that much moves boxes.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnx
from detections import detections
from onnxruntime_outputs import exact_session
from onnx import TensorProto, numpy_helper
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval


def tensor(path: Path, side: int) -> tuple[np.ndarray, tuple[int, int]]:
    """YOLOX's: BGR, at the top left of a grey square."""
    picture = Image.open(path).convert("RGB")
    ratio = min(side / picture.width, side / picture.height)
    size = (int(picture.width * ratio), int(picture.height * ratio))
    square = np.full((side, side, 3), 114, np.float32)
    square[: size[1], : size[0]] = np.asarray(picture.resize(size, Image.Resampling.BILINEAR))[:, :, ::-1]
    return square.transpose(2, 0, 1)[None], picture.size


def truth(images: list[Path], labels: Path) -> COCO:
    coco = {"images": [], "annotations": [], "categories": [{"id": c} for c in range(80)]}
    for i, image in enumerate(images):
        width, height = Image.open(image).size
        coco["images"].append({"id": i, "width": width, "height": height})
        for line in (labels / image.name).with_suffix(".txt").read_text().splitlines():
            cls, cx, cy, w, h = map(float, line.split())
            box = [(cx - w / 2) * width, (cy - h / 2) * height, w * width, h * height]
            coco["annotations"].append(
                {"id": len(coco["annotations"]) + 1, "image_id": i, "category_id": int(cls), "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
            )
    made = COCO()
    made.dataset = coco
    made.createIndex()
    return made


def ap50(coco: COCO, found: list[list[list[float]]]) -> float:
    rows = []
    for i, boxes in enumerate(found):
        width, height = coco.imgs[i]["width"], coco.imgs[i]["height"]
        for x0, y0, x1, y1, score, cls in boxes:
            box = [x0 * width, y0 * height, (x1 - x0) * width, (y1 - y0) * height]
            rows.append({"image_id": i, "category_id": int(cls), "bbox": box, "score": score})
    evaluation = COCOeval(coco, coco.loadRes(rows), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return float(evaluation.stats[1])


def nudged(path: Path, seed: int) -> bytes:
    """The model with each float weight of its convolutions moved by one unit in the last place."""
    model, random = onnx.load(path), np.random.default_rng(seed)
    weights = {n.input[1] for n in model.graph.node if n.op_type == "Conv"}
    for t in model.graph.initializer:
        if t.name in weights and t.data_type == TensorProto.FLOAT:
            values = numpy_helper.to_array(t)
            towards = np.where(random.random(values.shape) < 0.5, np.inf, -np.inf).astype(np.float32)
            t.CopyFrom(numpy_helper.from_array(np.nextafter(values, towards), t.name))
    return model.SerializeToString()


def main() -> None:
    model, data, ours = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
    images = sorted((data / "images").iterdir())
    coco = truth(images, data / "object_detection")
    lines = [json.loads(line) for line in ours.read_text().splitlines()]
    assert [Path(line["image"]).name for line in lines] == [i.name for i in images]
    found = [[[*d["box"], d["score"], d["index"]] for d in line["detections"]] for line in lines]
    reference = []
    for seed in range(5):
        session = exact_session(nudged(model, seed) if seed else model.read_bytes())
        picture = session.get_inputs()[0]
        side = picture.shape[2]
        theirs = []
        for image in images:
            pixels, frame = tensor(image, side)
            outputs = session.run(None, {picture.name: pixels})
            theirs.append(detections("yolox", outputs, side, side, frame, 0.001, 0.65, 100))
        reference.append(ap50(coco, theirs))
    print(json.dumps({"ours": ap50(coco, found), "reference": reference}))


if __name__ == "__main__":
    main()
