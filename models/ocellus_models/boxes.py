"""Boxes in numpy: YOLOX's decoding, suppression, average precision."""

from __future__ import annotations

import numpy as np

STRIDES = (8, 16, 32)


def cells(size: tuple[int, int]) -> np.ndarray:
    """x, y and stride of every cell of a network with inputs of `size` (height, width): f32 [cells, 3], the finest grid first."""
    grids = []
    for s in STRIDES:
        y, x = np.mgrid[: size[0] // s, : size[1] // s]
        grids.append(np.stack([x.ravel(), y.ravel(), np.full(x.size, s)], 1))
    return np.concatenate(grids).astype(np.float32)


def decode(output: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """One picture's output [cells, 5 + classes] -> corners [cells, 4], 0 to 1 of the picture, and scores [cells, classes]."""
    grid = cells(size)
    stride = grid[:, 2:]
    centre = (output[:, :2] + grid[:, :2]) * stride
    half = np.exp(output[:, 2:4]) * stride / 2
    corners = np.concatenate([centre - half, centre + half], 1)
    whole = np.array([size[1], size[0]] * 2, np.float32)
    return (corners / whole).clip(0, 1), output[:, 4:5] * output[:, 5:]


def iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Of each box of `a` [N, 4] with each of `b` [M, 4]."""
    low, high = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, 2:], b[None, :, 2:])
    both = np.prod((high - low).clip(0), 2)
    area = lambda c: np.prod(c[:, 2:] - c[:, :2], 1)
    return both / np.maximum(area(a)[:, None] + area(b)[None] - both, 1e-9)


def found(output: np.ndarray, size: tuple[int, int], threshold: float, overlap: float = 0.45) -> np.ndarray:
    """What an output says: [N, 6] score, class, corners; best first, suppressed by class."""
    corners, scores = decode(output, size)
    best = scores.argmax(1)
    score = scores[np.arange(len(scores)), best]
    chosen = np.flatnonzero(score >= threshold)
    chosen = chosen[np.argsort(-score[chosen], kind="stable")]
    hides = (iou(corners[chosen], corners[chosen]) > overlap) & (best[chosen, None] == best[None, chosen])
    free = np.ones(len(chosen), bool)
    for n in range(len(chosen)):
        if free[n]:
            free[n + 1 :] &= ~hides[n, n + 1 :]
    kept = chosen[free]
    return np.concatenate([score[kept, None], best[kept, None], corners[kept]], 1)


def average_precision(
    said: list[np.ndarray], truth: list[np.ndarray], classes: int, overlap: float = 0.5
) -> tuple[np.ndarray, np.ndarray]:
    """Of each class, at this overlap: the area below precision over recall, and how many objects there are.

    `said`: what `found` gives for each picture. `truth`: its objects, [M, 5].
    """
    areas, counts = np.zeros(classes), np.zeros(classes, np.int64)
    for c in range(classes):
        wanted = [t[t[:, 0] == c, 1:] for t in truth]
        counts[c] = sum(map(len, wanted))
        rows = [(s[0], picture, s[2:]) for picture, all_said in enumerate(said) for s in all_said if s[1] == c]
        rows.sort(key=lambda row: -row[0])
        free = [np.ones(len(w), bool) for w in wanted]
        hits = np.zeros(len(rows))
        for n, (_, picture, box) in enumerate(rows):
            if not len(wanted[picture]):
                continue
            overlaps = np.where(free[picture], iou(box[None], wanted[picture])[0], 0)
            best = overlaps.argmax()
            if overlaps[best] >= overlap:
                hits[n], free[picture][best] = 1, False
        recall = np.cumsum(hits) / max(1, counts[c])
        precision = np.cumsum(hits) / np.arange(1, len(rows) + 1)
        # The best precision at this recall or a higher one.
        envelope = np.maximum.accumulate(precision[::-1])[::-1]
        areas[c] = float(np.sum(np.diff(recall, prepend=0) * envelope))
    return areas, counts
