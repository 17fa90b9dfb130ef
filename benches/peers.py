#!/usr/bin/env python3
"""Inference beside onnxruntime and OpenVINO: one interleaved run, same file, same number of threads, same input of zeroes.

Needs numpy, onnxruntime and, if it is to be a peer, openvino. ANSWER_BINARY is the example `answer` of ocellus-int8; where the example
`layers` of ocellus-int8-kernels lies beside it, each line says how much of the processor's peak the multiply-accumulates on integers make.
Without models, those of the test data. Prints one line a model and number of threads, for people and for programs: the fastest of all rounds, in milliseconds (in
benches/arm's guests: millions of instructions), and the median of the rounds' ratios.

onnxruntime is measured as it comes (`ort`), which saturates, and so computes something else, on x86-64 with AVX2 and without VNNI, and
there with session.x64quantprecision=1 (`exact`), which does not. The ratio is to `ort`; `ratio_exact` to the other.
"""
import argparse
import functools
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import time

import numpy as np
import onnxruntime as ort

class Ours:
    def __init__(self, binary, model, threads):
        self.process = subprocess.Popen([binary, model, str(threads)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        self.isa, load, macs, share = self.process.stdout.readline().split()
        self.load_ms, self.macs, self.share = float(load), int(macs), float(share)

    def run(self):
        self.process.stdin.write("\n")
        return float(self.process.stdout.readline())

    def close(self):
        self.process.stdin.close()
        self.process.wait()


class OnnxRuntime:
    def __init__(self, model, threads, exact):
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.intra_op.allow_spinning", "1")
        # But not on, after a run is over, on a core that the next peer needs.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        if exact:
            options.add_session_config_entry("session.x64quantprecision", "1")
        start = time.perf_counter()
        self.session = ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        self.load_ms = (time.perf_counter() - start) * 1e3
        first = self.session.get_inputs()[0]
        dtype = {"tensor(float)": np.float32, "tensor(uint8)": np.uint8, "tensor(int8)": np.int8}[first.type]
        shape = [d if isinstance(d, int) and d > 0 else 1 for d in first.shape]
        self.feed = {first.name: np.zeros(shape, dtype)}

    def run(self):
        start = time.perf_counter()
        self.session.run(None, self.feed)
        return (time.perf_counter() - start) * 1e3


class OpenVino:
    def __init__(self, model, threads):
        import openvino

        core = openvino.Core()
        read = core.read_model(model)
        shape = [d.get_length() if d.is_static and d.get_length() > 0 else 1 for d in read.input(0).partial_shape]
        read.reshape(shape)
        start = time.perf_counter()
        self.request = core.compile_model(read, "CPU", {"INFERENCE_NUM_THREADS": threads}).create_infer_request()
        self.load_ms = (time.perf_counter() - start) * 1e3
        self.feed = {0: np.zeros(shape, read.input(0).element_type.to_dtype())}

    def run(self):
        start = time.perf_counter()
        self.request.infer(self.feed)
        return (time.perf_counter() - start) * 1e3


def maybe(make):
    """A peer that is not installed, or cannot run the file, is left out."""
    try:
        return make()
    except Exception as e:
        print(f"# left out: {str(e).splitlines()[0][:120]}", file=sys.stderr)
        return None


@functools.cache
def peak(layers, isa):
    """Multiply-accumulates a second of the inner instruction alone, on one thread; the best of three tries."""
    tries = [subprocess.run([layers, isa, "peak"], stdout=subprocess.PIPE, text=True, check=True).stdout for _ in range(3)]
    return max(float(line.split("reach")[1].split()[0]) for line in tries) * 1e9


def compare(binary, model, threads, rounds, warm_up, cpu):
    ours = Ours(binary, model, threads)
    peers = {
        "ort": maybe(lambda: OnnxRuntime(model, threads, False)),
        "exact": maybe(lambda: OnnxRuntime(model, threads, True)) if platform.machine() == "x86_64" else None,
        "openvino": maybe(lambda: OpenVino(model, threads)),
    }
    runners = {"ours": ours} | {name: peer for name, peer in peers.items() if peer}
    times = {name: [] for name in runners}
    for i in range(warm_up + rounds):
        for name, runner in runners.items():
            took = runner.run()
            if i >= warm_up:
                times[name].append(took)
    ours.close()
    ratios = {n: statistics.median(o / p for o, p in zip(times["ours"], t)) for n, t in times.items() if n != "ours"}
    best = {n: min(t) for n, t in times.items()}
    name = pathlib.Path(model).stem
    line = f"{name} threads={threads}{f' cpu={cpu}' if cpu else ''} isa={ours.isa} ours={best['ours']:.2f}"
    if "ort" in best:
        line += f" peer={best['ort']:.2f} ratio={ratios['ort']:.2f}"
    for other in ("exact", "openvino"):
        if other in best:
            line += f" {other}={best[other]:.2f} ratio_{other}={ratios[other]:.2f}"
    layers = pathlib.Path(binary).with_name("layers")
    if not cpu and layers.exists() and ours.macs:
        line += f" peak={100 * ours.macs / (best['ours'] / 1e3) / threads / peak(layers, ours.isa):.0f}%"
    line += f" integers={100 * ours.share:.1f}% load={ours.load_ms:.0f}"
    if peers["ort"]:
        line += f" peer_load={peers['ort'].load_ms:.0f}"
    print(line, flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--warm-up", type=int, default=3, help="rounds that are not counted")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--cpu", help="the processor that is emulated, to be told in each line")
    parser.add_argument("answer", metavar="ANSWER_BINARY")
    parser.add_argument("models", metavar="MODEL.onnx", type=pathlib.Path, nargs="*")
    args = parser.parse_args()
    data = pathlib.Path(os.environ.get("OCELLUS_TEST_DATA", pathlib.Path(__file__).parents[1] / "../shared/data"))
    for model in args.models or [p for p in sorted((data / "models").iterdir()) if "int8" in p.name]:
        for threads in args.threads:
            compare(args.answer, str(model), threads, args.rounds, args.warm_up, args.cpu)


if __name__ == "__main__":
    main()
