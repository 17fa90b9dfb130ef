#!/usr/bin/env python3
"""Decode + resize + tensor of 1280x720 frames to 1x3x224x224 f32: Ocellus beside OpenCV, interleaved, one thread each.

Needs numpy and opencv-python-headless. Usage: preprocess_vs_opencv.py BENCH_BINARY [IMAGE]
BENCH_BINARY is what `cargo bench --bench preprocess --no-run` names. Without IMAGE, one of the test data is taken.
OpenCV does what a practitioner writes: decode, resize the short side to 256, crop, normalize, NCHW.
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

cv2.setNumThreads(1)
MEAN = np.array([0.485, 0.456, 0.406], np.float32) * 255
INV_STD = 1 / (np.array([0.229, 0.224, 0.225], np.float32) * 255)


def tensor(rgb, interpolation):
    h, w = rgb.shape[:2]
    size = (256 * w // h, 256) if w > h else (256, 256 * h // w)
    small = cv2.resize(rgb, size, interpolation=interpolation)
    x, y = (size[0] - 224) // 2, (size[1] - 224) // 2
    crop = small[y : y + 224, x : x + 224].astype(np.float32)
    return np.ascontiguousarray(((crop - MEAN) * INV_STD).transpose(2, 0, 1))[None]


def from_jpeg(data, flags, interpolation):
    return tensor(cv2.cvtColor(cv2.imdecode(data, flags), cv2.COLOR_BGR2RGB), interpolation)


def from_yuyv(data, interpolation):
    return tensor(cv2.cvtColor(data.reshape(720, 1280, 2), cv2.COLOR_YUV2RGB_YUYV), interpolation)


def frames(image, folder):
    """A picture of a camera's size, as JPEG 4:2:2 and 4:2:0 of quality 85, and as YUYV."""
    bgr = cv2.imread(str(image))
    h, w = bgr.shape[:2]
    scale = max(1280 / w, 720 / h)
    bgr = cv2.resize(bgr, None, fx=scale, fy=scale, interpolation=cv2.INTER_LANCZOS4)[:720, :1280]
    bgr = np.ascontiguousarray(bgr)
    files = {}
    for name, factor in (("422", cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422), ("420", cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420)):
        ok, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 85, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, factor])
        assert ok
        files[name] = folder / f"{name}.jpg"
        files[name].write_bytes(data.tobytes())
    ycc = cv2.cvtColor(bgr, cv2.COLOR_BGR2YCrCb).astype(np.float32)
    y = 16 + ycc[..., 0] * 219 / 255
    cr, cb = ((128 + (ycc[..., c] - 128) * 224 / 255).reshape(720, 640, 2).mean(2) for c in (1, 2))
    yuyv = np.empty((720, 640, 4), np.uint8)
    yuyv[..., 0], yuyv[..., 2] = np.rint(y[:, ::2]), np.rint(y[:, 1::2])
    yuyv[..., 1], yuyv[..., 3] = np.rint(cb), np.rint(cr)
    files["yuyv"] = folder / "frame.yuyv"
    yuyv.tofile(files["yuyv"])
    return files


def main():
    binary = sys.argv[1]
    data = pathlib.Path(os.environ.get("OCELLUS_TEST_DATA", pathlib.Path(__file__).parents[1] / "../shared/data"))
    # Sorted: the same picture everywhere.
    image = pathlib.Path(sys.argv[2]) if len(sys.argv) > 2 else sorted((data / "images/coco").rglob("*.jpg"))[0]
    rounds, count = 40, 5
    with tempfile.TemporaryDirectory() as folder:
        files = frames(image, pathlib.Path(folder))
        full, half = cv2.IMREAD_COLOR, cv2.IMREAD_REDUCED_COLOR_2
        cases = []
        for name in ("422", "420"):
            jpeg = np.fromfile(files[name], np.uint8)
            peers = {
                "imdecode, INTER_LINEAR": lambda j=jpeg: from_jpeg(j, full, cv2.INTER_LINEAR),
                "imdecode, INTER_AREA": lambda j=jpeg: from_jpeg(j, full, cv2.INTER_AREA),
                "REDUCED_COLOR_2, INTER_LINEAR": lambda j=jpeg: from_jpeg(j, half, cv2.INTER_LINEAR),
                "REDUCED_COLOR_2, INTER_AREA": lambda j=jpeg: from_jpeg(j, half, cv2.INTER_AREA),
            }
            cases.append((f"mjpeg {name} ({len(jpeg) // 1024} KiB)", f"mjpeg 1280 720 {count} {files[name]}", peers))
        yuyv = np.fromfile(files["yuyv"], np.uint8)
        peers = {
            "cvtColor, INTER_LINEAR": lambda: from_yuyv(yuyv, cv2.INTER_LINEAR),
            "cvtColor, INTER_AREA": lambda: from_yuyv(yuyv, cv2.INTER_AREA),
        }
        cases.append(("yuyv", f"yuyv 1280 720 {count} {files['yuyv']}", peers))

        ours = subprocess.Popen([binary], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        for name, line, peers in cases:
            times = {"ocellus": []} | {peer: [] for peer in peers}
            decode = []
            for _ in range(rounds):
                ours.stdin.write(line + "\n")
                ours.stdin.flush()
                fastest, median, decoding = map(float, ours.stdout.readline().split())
                times["ocellus"].append((fastest, median))
                decode.append(decoding)
                for peer, run in peers.items():
                    each = []
                    for _ in range(count):
                        start = time.perf_counter()
                        run()
                        each.append((time.perf_counter() - start) * 1e6)
                    times[peer].append((min(each), statistics.median(each)))
            own = statistics.median(m for _, m in times["ocellus"])
            print(f"{name}: ocellus decodes for {statistics.median(decode):.0f} us of {own:.0f} us")
            for peer, each in times.items():
                median = statistics.median(m for _, m in each)
                print(f"  {peer:32} min {min(f for f, _ in each):7.0f} us  median {median:7.0f} us  ocellus/it {own / median:.2f}")
        ours.stdin.close()
        ours.wait()


if __name__ == "__main__":
    main()
