"""The reference for re-identification behind a detector: Pillow's crops, onnxruntime's embeddings, and what the messages have.

python reid.py MODEL CROPS TENSORS: CROPS is a JSON list of {picture, box: [x0, y0, x1, y1] in pixels, embedding: as in the message}, TENSORS holds
what the firmware made of each crop. Prints for each a JSON list of the message's embedding's cosine to onnxruntime's: of that tensor, of Pillow's
crop, and the highest of any other of Pillow's crops.
"""

import base64
import json
import sys
from pathlib import Path

import numpy as np
from onnxruntime_outputs import exact_session
from PIL import Image

HEIGHT, WIDTH = 256, 128
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def tensor(picture: Image.Image, box: list[int]) -> np.ndarray:
    """[1, 3, 256, 128]: stretched, and normalized as for ImageNet."""
    crop = picture.crop(box).resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR)
    return ((np.asarray(crop) / 255 - MEAN) / STD).transpose(2, 0, 1)[None].astype(np.float32)


def of_message(embedding: dict) -> np.ndarray:
    vector = np.frombuffer(base64.b64decode(embedding["b64"]), {"f16": "<f2", "f32": "<f4"}[embedding["dtype"]])
    assert len(vector) == embedding["dim"]
    return vector


def main() -> None:
    session = exact_session(Path(sys.argv[1]).read_bytes())
    crops = json.loads(Path(sys.argv[2]).read_text())
    tensors = np.frombuffer(Path(sys.argv[3]).read_bytes(), "<f4").reshape(len(crops), 1, 3, HEIGHT, WIDTH)
    pictures = (Image.open(c["picture"]).convert("RGB") for c in crops)
    pillows = (tensor(p, c["box"]) for p, c in zip(pictures, crops))
    ours = unit([of_message(c["embedding"]) for c in crops])
    to_ours, to_pillows = (ours @ unit([session.run(None, {"picture": t})[0][0] for t in fed]).T for fed in (tensors, pillows))
    own = to_ours.diagonal(), to_pillows.diagonal().copy()
    np.fill_diagonal(to_pillows, -1)
    print(json.dumps(np.stack([*own, to_pillows.max(1)], 1).tolist()))


def unit(vectors: list[np.ndarray]) -> np.ndarray:
    vectors = np.stack(vectors).astype(np.float64)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


if __name__ == "__main__":
    main()
