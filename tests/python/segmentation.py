"""Class maps by onnxruntime, and what pycocotools makes of masks.

python segmentation.py map MODEL TENSORS OUT: the class of each pixel, u16, for each of the tensors in TENSORS; scores go through numpy's argmax.
python segmentation.py rle: reads lines of `ocellus segment --json --rle` and writes for each line the classes of its map, row by row, -1 for none, after it
has encoded each mask again and found the same string.
python segmentation.py masks DIR: reads such lines, and writes for each a mask into DIR as somebody else could have drawn it: a corner is another class, some
rows are open. Prints what mean IoU and pixel accuracy then are.
"""

import json
import sys
from pathlib import Path

import numpy as np
from onnxruntime_outputs import exact_session
from PIL import Image
from pycocotools import mask


def class_maps(model: str, tensors: str, out: str) -> None:
    session = exact_session(Path(model).read_bytes())
    picture = session.get_inputs()[0]
    dtype = {"tensor(float)": "<f4", "tensor(uint8)": "u1"}[picture.type]
    inputs = np.frombuffer(Path(tensors).read_bytes(), dtype).reshape(-1, *picture.shape[1:])
    with open(out, "wb") as file:
        for tensor in inputs:
            found = session.run(None, {picture.name: tensor[None]})[0]
            found = found.argmax(1) if found.ndim == 4 else found
            file.write(found.astype("<u2").tobytes())


def maps():
    """Of each line the image's path and its classes."""
    for line in map(json.loads, sys.stdin):
        height, width = line["map"]["height"], line["map"]["width"]
        classes = np.full((height, width), -1, int)
        for segment in line["segments"]:
            rle = {"size": segment["rle"]["size"], "counts": segment["rle"]["counts"].encode()}
            pixels = mask.decode(rle).astype(bool)
            assert mask.encode(np.asfortranarray(pixels, np.uint8)) == rle
            assert abs(pixels.mean() - segment["area"]) < 1e-6, (pixels.mean(), segment["area"])
            assert (classes[pixels] == -1).all()
            classes[pixels] = segment["index"]
        yield Path(line["image"]), classes


def decoded() -> None:
    for _, classes in maps():
        print(json.dumps(classes.flatten().tolist()))


def masks(directory: str) -> None:
    confusion = np.zeros((21, 21), int)
    for image, found in maps():
        drawn = found.copy()
        drawn[: drawn.shape[0] // 3, : drawn.shape[1] // 2] = 3
        drawn[-10:] = 255
        picture = Image.fromarray(drawn.astype(np.uint8), "P")
        picture.putpalette([n * 7 % 256 for n in range(768)])
        picture.save((Path(directory) / image.name).with_suffix(".png"))
        known = drawn != 255
        np.add.at(confusion, (drawn[known], found[known]), 1)
    right = np.diag(confusion)
    either = confusion.sum(0) + confusion.sum(1) - right
    iou = right[either > 0] / either[either > 0]
    print(json.dumps({"mean_iou": iou.mean(), "pixel_accuracy": right.sum() / confusion.sum()}))


if __name__ == "__main__":
    {"map": class_maps, "rle": decoded, "masks": masks}[sys.argv[1]](*sys.argv[2:])
