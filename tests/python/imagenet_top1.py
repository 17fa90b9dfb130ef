"""The reference for the end-to-end test: onnxruntime on Pillow's pixels.

python imagenet_top1.py MODEL IMAGES_DIR → a JSON object, file name → index of the best class.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
from onnxruntime_outputs import exact
from PIL import Image

MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)


def input_tensor(path: Path) -> np.ndarray:
    """Short side to 256, centre crop of 224, as torchvision's evaluation transform: [1, 3, 224, 224]."""
    image = Image.open(path).convert("RGB")
    scale = 256 / min(image.size)
    size = tuple(256 if side == min(image.size) else int(side * scale) for side in image.size)
    image = image.resize(size, Image.Resampling.BILINEAR)
    left, top = (round((side - 224) / 2) for side in image.size)
    pixels = np.asarray(image.crop((left, top, left + 224, top + 224)), np.float32) / 255
    return ((pixels - MEAN) / STD).transpose(2, 0, 1)[None]


def main() -> None:
    model, images = sys.argv[1], Path(sys.argv[2])
    options = exact()
    options.intra_op_num_threads = 2
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    best = {p.name: int(session.run(None, {name: input_tensor(p)})[0].argmax()) for p in sorted(images.iterdir())}
    json.dump(best, sys.stdout)


if __name__ == "__main__":
    main()
