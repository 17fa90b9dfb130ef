"""The reference for detectors: onnxruntime on tensors that the firmware made, then each family's published decoding in numpy.

python detections.py MODEL FAMILY TENSORS FRAMES OUT [THRESHOLD [IOU [MAX]]]: TENSORS holds whole float inputs, one after the other. FRAMES is a
JSON list of [width, height]. OUT gets a JSON list of lists of [x0, y0, x1, y1, score, class], best first, in 0 to 1 of the frame.
"""

import json
import sys
from pathlib import Path

import numpy as np
from onnxruntime_outputs import exact_session

V3 = [[10, 13, 16, 30, 33, 23], [30, 61, 62, 45, 59, 119], [116, 90, 156, 198, 373, 326]]
V3_TINY = [[10, 14, 23, 27, 37, 58], [81, 82, 135, 169, 344, 319]]
V4 = [[12, 16, 19, 36, 40, 28], [36, 75, 76, 55, 72, 146], [142, 110, 192, 243, 459, 401]]
V4_TINY = [[23, 27, 37, 58, 81, 82], [81, 82, 135, 169, 344, 319]]


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def corners(xywh: np.ndarray) -> np.ndarray:
    centre, size = xywh[:, :2], xywh[:, 2:4]
    return np.concatenate([centre - size / 2, centre + size / 2], 1)


def best_class(boxes: np.ndarray, scores: np.ndarray):
    """Each box with its best class."""
    classes = scores.argmax(1)
    return boxes, scores[np.arange(len(scores)), classes], classes


def yolox(outputs, width, height):
    out = outputs[0][0]
    grids, strides = [], []
    for stride in (8, 16, 32):
        x, y = np.meshgrid(np.arange(width // stride), np.arange(height // stride))
        grids.append(np.stack((x, y), 2).reshape(-1, 2))
        strides.append(np.full((x.size, 1), stride))
    grid, stride = np.concatenate(grids), np.concatenate(strides)
    xywh = np.concatenate([(out[:, :2] + grid) * stride, np.exp(out[:, 2:4]) * stride], 1)
    return best_class(corners(xywh), out[:, 4:5] * out[:, 5:])


def yolov5(outputs, width, height):
    out = outputs[0][0]
    return best_class(corners(out), out[:, 4:5] * out[:, 5:])


def yolov8(outputs, width, height):
    out = outputs[0][0].T
    return best_class(corners(out), out[:, 4:])


def yolov10(outputs, width, height):
    out = outputs[0][0]
    return out[:, :4], out[:, 4], out[:, 5].astype(int)


def heads(outputs, width, height, strides):
    """Raw heads as [height, width, anchor, values], the finest first, whatever their layout."""
    for stride in strides:
        w, h = width // stride, height // stride
        for out in outputs:
            if out.ndim == 4 and out.shape[2:] == (h, w):
                yield stride, out[0].reshape(3, -1, h, w).transpose(2, 3, 0, 1)
            elif out.ndim == 5 and out.shape[1:3] == (h, w):
                yield stride, out[0]


def anchored(outputs, width, height, anchors, scales):
    boxes, scores = [], []
    strides = (8, 16, 32)[-len(anchors):]
    for (stride, head), anchor, scale in zip(heads(outputs, width, height, strides), anchors, scales):
        h, w = head.shape[:2]
        grid = np.stack(np.meshgrid(np.arange(w), np.arange(h)), 2)[:, :, None]
        xy = (sigmoid(head[..., :2]) * scale - 0.5 * (scale - 1) + grid) * stride
        wh = np.exp(head[..., 2:4]) * np.array(anchor, np.float32).reshape(3, 2)
        boxes.append(corners(np.concatenate([xy, wh], -1).reshape(-1, 4)))
        scores.append((sigmoid(head[..., 4:5]) * sigmoid(head[..., 5:])).reshape(len(boxes[-1]), -1))
    return best_class(np.concatenate(boxes), np.concatenate(scores))


def yolov3(outputs, width, height):
    return anchored(outputs, width, height, V3 if len(outputs) == 3 else V3_TINY, [1, 1, 1])


def yolov4(outputs, width, height):
    if len(outputs) == 2:
        return anchored(outputs, width, height, V4_TINY, [1.05, 1.05])
    return anchored(outputs, width, height, V4, [1.2, 1.1, 1.05])


def ultraface(outputs, width, height):
    scores, boxes = outputs[0][0], outputs[1][0]
    return boxes * [width, height, width, height], scores[:, 1], np.zeros(len(boxes), int)


def ssd_defaults(side, grids):
    """MLPerf's default boxes for a square input and its grids' cells a side: centres and sizes in 0 to 1, shape by shape, then row by row."""
    defaults, sides = [], [21, 45, 99, 153, 207, 261, 315]
    for i, (cells, ratios) in enumerate(zip(grids, [[2], [2, 3], [2, 3], [2, 3], [2], [2]], strict=True)):
        # Both divisions are of whole numbers, as published: at 1200 pixels the cells fill the picture.
        step = 1 / (side // (side // cells))
        s, following = sides[i] / 300, sides[i + 1] / 300
        shapes = [(s, s), ((s * following) ** 0.5,) * 2]
        for r in ratios:
            shapes += [(s * r**0.5, s / r**0.5), (s / r**0.5, s * r**0.5)]
        y, x = np.mgrid[:cells, :cells]
        for w, h in shapes:
            at = [(x.ravel() + 0.5) * step, (y.ravel() + 0.5) * step, np.full(x.size, w), np.full(x.size, h)]
            defaults.append(np.stack(at, 1))
    return np.concatenate(defaults).clip(0, 1)


def ssd(outputs, width, height):
    """MLPerf's SSD-ResNet-34: locations [1, 4, N], classes [1, 81, N] without their softmax."""
    locations, classes = outputs[0][0].T, outputs[1][0].T
    d = ssd_defaults(width, [50, 25, 13, 7, 3, 3])
    xywh = np.concatenate([locations[:, :2] * 0.1 * d[:, 2:] + d[:, :2], np.exp(locations[:, 2:] * 0.2) * d[:, 2:]], 1)
    e = np.exp(classes - classes.max(1, keepdims=True))
    p = (e / e.sum(1, keepdims=True))[:, 1:]
    # Each class of a box stands for itself.
    n = p.shape[1]
    return np.repeat(corners(xywh) * width, n, 0), p.ravel(), np.tile(np.arange(n), len(p))


def ssd_whole(outputs, width, height):
    """The whole graph's own answer, already suppressed: corners in 0 to 1, classes counted with the background, scores."""
    boxes, classes, scores = (o[0] for o in outputs)
    return boxes * [width, height, width, height], scores, classes - 1


def suppress(boxes, scores, classes, iou, most):
    order = np.argsort(-scores, kind="stable")[:10000]
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    kept = []
    for i in order:
        if len(kept) == most:
            break
        k = np.array([j for j in kept if classes[j] == classes[i]], int)
        wh = np.minimum(boxes[k, 2:], boxes[i, 2:]) - np.maximum(boxes[k, :2], boxes[i, :2])
        both = wh.clip(0).prod(1)
        if not (both / (area[k] + area[i] - both) > iou).any():
            kept.append(i)
    return kept


def to_frame(boxes, family, width, height, frame):
    """The inverse of the resize: exactly of what was resized, to whole pixels, not of the ratio that was wanted."""
    if family in ("ssd", "ssd_whole", "ultraface"):
        left = top = 0
        w, h = width, height
    else:
        ratio = min(width / frame[0], height / frame[1])
        whole = int if family == "yolox" else round
        w, h = (whole(side * ratio + 1e-9) for side in frame)
        left, top = (0, 0) if family == "yolox" else ((width - w) // 2, (height - h) // 2)
    return ((boxes - [left, top, left, top]) / [w, h, w, h]).clip(0, 1)


def detections(family, outputs, width, height, frame, threshold, iou, most):
    boxes, scores, classes = globals()[family](outputs, width, height)
    wanted = (scores >= threshold) & (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    boxes, scores, classes = boxes[wanted].astype(np.float64), scores[wanted], classes[wanted]
    if family in ("yolov10", "ssd_whole"):
        kept = np.argsort(-scores, kind="stable")[:most]
    else:
        kept = suppress(boxes, scores, classes, iou, most)
    boxes = to_frame(boxes[kept], family, width, height, frame)
    found = zip(boxes.tolist(), scores[kept].tolist(), classes[kept].tolist())
    # What lies beside the frame is nothing.
    return [[*box, score, cls] for box, score, cls in found if box[2] > box[0] and box[3] > box[1]]


def main() -> None:
    model, family, tensors, frames, out = sys.argv[1:6]
    threshold, iou, most = (*map(float, sys.argv[6:]), *(0.5, 0.45, 100)[len(sys.argv) - 6:])
    numbers = np.frombuffer(Path(tensors).read_bytes(), "<f4")
    session = exact_session(Path(model).read_bytes())
    picture = session.get_inputs()[0]
    shape = [1 if not isinstance(d, int) else d for d in picture.shape]
    height, width = shape[1:3] if shape[3] == 3 else shape[2:]
    results = []
    for frame, tensor in zip(json.loads(Path(frames).read_text()), numbers.reshape(-1, *shape[1:]), strict=True):
        outputs = session.run(None, {picture.name: tensor[None]})
        results.append(detections(family, outputs, width, height, frame, threshold, iou, int(most)))
    Path(out).write_text(json.dumps(results))


if __name__ == "__main__":
    main()
