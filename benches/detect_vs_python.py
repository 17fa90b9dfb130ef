#!/usr/bin/env python3
"""From a JPEG to boxes: Ocellus beside what a practitioner writes in Python, interleaved, one thread each, CPU time.

Needs numpy, opencv-python-headless and onnxruntime. Usage: detect_vs_python.py BENCH_BINARY [MODEL [ROUNDS]]
BENCH_BINARY is what `cargo bench --bench detect_path --no-run` names. MODEL is a YOLOX; the int8 YOLOX-nano of the test data without one.
The COCO pictures of the test data, each scaled to a camera's 1280x720 (JPEG 4:2:2), go through each in turn. Python is cv2.imdecode, cv2.resize into the letterbox, onnxruntime (as it comes, and with
session.x64quantprecision=1 where it can, which computes the same as we do), and YOLOX's decoding and suppression in numpy.

Prints, of all rounds' medians, milliseconds a picture; and Ocellus's stages with the share of reading the outputs and tracking in the inference.
"""
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import cv2
import numpy as np
import onnxruntime as ort
from preprocess_vs_opencv import frames

THRESHOLD, IOU = 0.25, 0.45
cv2.setNumThreads(1)


def session(model, exact):
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    if exact:
        options.add_session_config_entry("session.x64quantprecision", "1")
    return ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


class Python:
    def __init__(self, model, exact):
        self.session = session(model, exact)
        self.input = self.session.get_inputs()[0]
        self.side = self.input.shape[2]
        grids, strides = [], []
        for stride in (8, 16, 32):
            n = self.side // stride
            x, y = np.meshgrid(np.arange(n), np.arange(n))
            grids.append(np.stack((x, y), 2).reshape(-1, 2))
            strides.append(np.full((n * n, 1), stride))
        self.grid, self.stride = np.concatenate(grids), np.concatenate(strides)

    def run(self, path):
        start = time.process_time()
        picture = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
        height, width = picture.shape[:2]
        ratio = min(self.side / height, self.side / width)
        small = cv2.resize(picture, (int(width * ratio), int(height * ratio)), interpolation=cv2.INTER_LINEAR)
        square = np.full((self.side, self.side, 3), 114, np.uint8)
        square[: small.shape[0], : small.shape[1]] = small
        tensor = np.ascontiguousarray(square.transpose(2, 0, 1), np.float32)[None]
        out = self.session.run(None, {self.input.name: tensor})[0][0]
        boxes, scores, classes = self.decode(out)
        found = boxes[self.suppress(boxes, scores, classes)] / ratio
        return time.process_time() - start, len(found)

    def decode(self, out):
        scores = out[:, 4:5] * out[:, 5:]
        classes = scores.argmax(1)
        scores = scores[np.arange(len(scores)), classes]
        kept = scores >= THRESHOLD
        out, grid, stride = out[kept], self.grid[kept], self.stride[kept]
        centre, size = (out[:, :2] + grid) * stride, np.exp(out[:, 2:4]) * stride
        return np.concatenate([centre - size / 2, centre + size / 2], 1), scores[kept], classes[kept]

    @staticmethod
    def suppress(boxes, scores, classes):
        # Classes are moved apart, so that one pass does all.
        boxes = boxes + classes[:, None] * 4096.0
        area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        order, kept = scores.argsort()[::-1], []
        while order.size:
            best, rest = order[0], order[1:]
            kept.append(best)
            low, high = np.maximum(boxes[best, :2], boxes[rest, :2]), np.minimum(boxes[best, 2:], boxes[rest, 2:])
            both = np.prod(np.clip(high - low, 0, None), 1)
            order = rest[both / (area[best] + area[rest] - both) <= IOU]
        return kept


class Ours:
    def __init__(self, binary, model):
        self.process = subprocess.Popen([binary, model], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        self.stages = []

    def cpu(self):
        """Nanoseconds that the main thread, the only one that works, has run."""
        return int(pathlib.Path(f"/proc/{self.process.pid}/schedstat").read_text().split()[0])

    def run(self, path):
        before = self.cpu()
        self.process.stdin.write(f"{path}\n")
        *stages, found = self.process.stdout.readline().split()
        self.stages.append([float(s) / 1e3 for s in stages])
        return (self.cpu() - before) / 1e9, int(found)


def maybe(make):
    try:
        return make()
    except Exception as problem:  # noqa: BLE001 onnxruntime's own classes
        print(f"left out: {str(problem).splitlines()[0][:120]}", file=sys.stderr)
        return None


def main():
    binary = sys.argv[1]
    data = pathlib.Path(os.environ.get("OCELLUS_TEST_DATA", pathlib.Path(__file__).parents[1] / "../shared/data"))
    model = sys.argv[2] if len(sys.argv) > 2 else data / "models/yolox-nano-int8-qdq-u8s8.onnx"
    rounds = int(sys.argv[3]) if len(sys.argv) > 3 else 5
    with tempfile.TemporaryDirectory() as folder:
        pictures = []
        for photograph in sorted((data / "images/coco/images").glob("*.jpg")):
            own = pathlib.Path(folder) / photograph.stem
            own.mkdir()
            pictures.append(frames(photograph, own)["422"])
        measure(binary, model, rounds, pictures)


def measure(binary, model, rounds, pictures):
    ours = Ours(binary, model)
    peers = {"ocellus": ours, "Python": Python(model, False), "Python, exact": maybe(lambda: Python(model, True))}
    peers = {name: peer for name, peer in peers.items() if peer}
    for peer in peers.values():
        for picture in pictures[:3]:
            peer.run(picture)
    ours.stages.clear()
    means = {name: [] for name in peers}
    for _ in range(rounds):
        sums = dict.fromkeys(peers, 0.0)
        found = dict.fromkeys(peers, 0)
        for picture in pictures:
            for name, peer in peers.items():
                took, n = peer.run(picture)
                sums[name] += took
                found[name] += n
        for name, total in sums.items():
            means[name].append(1e3 * total / len(pictures))
    own = statistics.median(means["ocellus"])
    for name, each in means.items():
        ratio = statistics.median(a / b for a, b in zip(means["ocellus"], each))
        print(f"{name:16} {statistics.median(each):7.2f} ms of CPU a picture, ocellus/it {ratio:.2f}, {found[name]} boxes")
    decode, prepare, infer, read, track = (statistics.median(s) for s in zip(*ours.stages))
    print(f"ocellus: decode {decode:.2f}, preprocess {prepare:.2f}, infer {infer:.2f}, read the outputs {read:.3f}, track {track:.3f} ms of {own:.2f}")
    print(f"reading the outputs and tracking: {100 * (read + track) / infer:.2f} % of the inference")


if __name__ == "__main__":
    main()
