"""COCO's twelve numbers by pycocotools; null where it says -1.

python coco_scores.py cases FILE: for each case of made boxes in FILE (a list of images for each, with "drawn" and "found") a list of them.
python coco_scores.py annotations COCO NAMES OUT: writes the boxes of the data set COCO as an annotation file, with COCO's 91 ids.
python coco_scores.py results ANNOTATIONS RESULTS: those of a file of results.
"""

import contextlib
import io
import json
import sys
from pathlib import Path

from coco_ap import truth
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

# Of COCO's 91 ids 80 are in use.
UNUSED = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
IDS = [i for i in range(1, 91) if i not in UNUSED]


def scores(annotated: COCO, results: list[dict]) -> list[float | None]:
    with contextlib.redirect_stdout(io.StringIO()):
        found = COCO()
        found.dataset = {**annotated.dataset, "annotations": []}
        found.createIndex()
        evaluation = COCOeval(annotated, annotated.loadRes(results) if results else found, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [None if s == -1 else float(s) for s in evaluation.stats]


def made(images: list[dict]) -> list[float | None]:
    coco = {"images": [], "annotations": [], "categories": [{"id": c} for c in range(3)]}
    results = []
    for i, image in enumerate(images):
        coco["images"].append({"id": i})
        for d in image["drawn"]:
            number = len(coco["annotations"]) + 1
            one = {"id": number, "image_id": i, "category_id": d["class"], "bbox": d["bbox"], "area": d["area"], "iscrowd": int(d["crowd"])}
            coco["annotations"].append(one)
        results += [{"image_id": i, "category_id": f["class"], "bbox": f["bbox"], "score": f["score"]} for f in image["found"]]
    annotated = COCO()
    annotated.dataset = coco
    with contextlib.redirect_stdout(io.StringIO()):
        annotated.createIndex()
    return scores(annotated, results)


def annotations(data: Path, names: Path, out: Path) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        coco = truth(sorted((data / "images").iterdir()), data / "object_detection").dataset
    for image, path in zip(coco["images"], sorted((data / "images").iterdir()), strict=True):
        image["file_name"] = path.name
    for one in coco["annotations"]:
        one["category_id"] = IDS[one["category_id"]]
    coco["categories"] = [{"id": i, "name": n} for i, n in zip(IDS, names.read_text().splitlines(), strict=True)]
    out.write_text(json.dumps(coco))


def main() -> None:
    what, *paths = sys.argv[1:]
    paths = [Path(p) for p in paths]
    if what == "annotations":
        annotations(*paths)
    elif what == "cases":
        print(json.dumps([made(case) for case in json.loads(paths[0].read_text())]))
    else:
        with contextlib.redirect_stdout(io.StringIO()):
            annotated = COCO(str(paths[0]))
        print(json.dumps(scores(annotated, json.loads(paths[1].read_text()))))


if __name__ == "__main__":
    main()
