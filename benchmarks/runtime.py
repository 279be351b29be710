"""Run-times of one detector against PyTorch: start-up and speed as ratios in one run, and how far the answers differ.

    python benchmarks/runtime.py                   AnoCLIP on the bundled backbone at 448
    python benchmarks/runtime.py --size 224 --repeats 9 --int8

Start-up is a process of its own: import, load, first prediction. Speed is the network alone on one batch, candidates in
turn. Needs the extra `[export]`; int8 is judged by its gate first, and left out with the reason where it fails.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from anomalens.detection.detector import Detector
from anomalens.detection.loading import load_detector
from anomalens.export import gate
from anomalens.export.exporter import export
from measure import interleaved, machine

_START = """
import sys, time
begin = time.perf_counter()
import numpy as np
from anomalens import load_detector
detector = load_detector(sys.argv[1], dtype=sys.argv[2], **({{}} if "." in sys.argv[1] else {options!r}))
detector.predict(np.zeros((64, 64, 3), np.uint8))
print(time.perf_counter() - begin)
"""


def start_up(method: str, dtype: str, options: dict[str, Any], repeats: int) -> float:
    """Best seconds from an empty interpreter to the first prediction (the best one: nothing was cold)."""
    script = _START.format(options=options)
    taken = []
    for _ in range(repeats):
        command = [sys.executable, "-c", script, method, dtype]
        taken.append(float(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    return min(taken)


def main() -> None:
    """Export once, then measure all candidates."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", default="anoclip")
    parser.add_argument("--size", type=int, default=448)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--int8", action="store_true", help="also int8 for ONNX Runtime")
    asked = parser.parse_args()
    options: dict[str, Any] = {"size": asked.size, "device": "cpu", "engine": "torch"}
    torch_detector = load_detector(asked.method, batch_size=2, **options)
    with tempfile.TemporaryDirectory() as folder:
        images = [image for image, _ in gate.labelled_images(gate.SCENES, 2)]
        files = {"onnx": Path(folder, "model.onnx"), "openvino": Path(folder, "model.xml")}
        for out in files.values():
            if not (report := export(torch_detector, out, images)).passed:
                sys.exit(f"{out.name} differs from PyTorch: {report.difference}")
        candidates = {  # name: (method or file, dtype)
            "torch, float32": (asked.method, "float32"),
            "torch, bfloat16": (asked.method, "bfloat16"),
            "ONNX Runtime, float32": (str(files["onnx"]), "float32"),
            "OpenVINO, float32": (str(files["openvino"]), "float32"),
            "OpenVINO, bfloat16": (str(files["openvino"]), "bfloat16"),
        }
        if asked.int8:
            rounded = Path(folder, "int8.onnx")
            verdict = export(torch_detector, rounded, images, labelled=gate.labelled_images(gate.SCENES, 32)).verdict
            print(verdict)
            if verdict and verdict.passed:
                candidates["ONNX Runtime, int8"] = (str(rounded), "float32")
        detectors = {
            name: load_detector(method, dtype=dtype, **({} if Path(method).suffix else options))
            for name, (method, dtype) in candidates.items()
        }
        report_table(asked, detectors, candidates, options)


def report_table(
    asked: argparse.Namespace,
    detectors: dict[str, Detector],
    candidates: dict[str, tuple[str, str]],
    options: dict[str, Any],
) -> None:
    """Measure and print."""
    random = np.random.default_rng(0)
    shape = (asked.batch, 3, asked.size, asked.size)
    raw = random.random(shape, np.float32)
    keys = range(asked.batch)
    batches, maps = {}, {}
    for name, detector in detectors.items():
        mean, std = (
            np.array(v, np.float32).reshape(3, 1, 1) for v in (detector.preprocess.mean, detector.preprocess.std)
        )
        batches[name] = (raw - mean) / std
        maps[name] = detector.score_batch(batches[name], keys).map
    speed = interleaved(
        {name: partial(detector.score_batch, batches[name], keys) for name, detector in detectors.items()},
        asked.repeats,
    )
    start = {name: start_up(method, dtype, options, 3) for name, (method, dtype) in candidates.items()}
    first = next(iter(detectors))
    span = np.ptp(maps[first])
    print(f"{asked.method}, bundled backbone, {asked.size} px, batch {asked.batch}, median of {asked.repeats}")
    print(machine(), time.strftime("%Y-%m-%d"), "\n")
    print("| run-time | images/s | against torch | start-up, s | against torch | map differs, of its range |")
    print("|---|---|---|---|---|---|")
    for name in detectors:
        print(
            f"| {name} | {asked.batch / speed[name]:.2f} | {speed[first] / speed[name]:.2f}x | {start[name]:.2f} "
            f"| {start[first] / start[name]:.2f}x | {np.abs(maps[name] - maps[first]).max() / span:.1e} |"
        )


if __name__ == "__main__":
    main()
