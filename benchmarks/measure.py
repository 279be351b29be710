"""How every benchmark measures: candidates in turn, in one run, so that a noisy machine is noisy for all of them."""

import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch


def interleaved(candidates: Mapping[str, Callable[[], object]], repeats: int, warm_up: bool = True) -> dict[str, float]:
    """Median seconds of each candidate over `repeats` rounds; every round runs all of them once."""
    taken: dict[str, list[float]] = {name: [] for name in candidates}
    if warm_up:
        for run in candidates.values():
            run()
    for _ in range(repeats):
        for name, run in candidates.items():
            begin = time.perf_counter()
            run()
            taken[name].append(time.perf_counter() - begin)
    return {name: statistics.median(values) for name, values in taken.items()}


def peak_memory(script: str, arguments: list[str]) -> float:
    """Peak resident memory in MB of `script` run on its own; with `arguments` it must print it (see `report_peak`)."""
    out = subprocess.run([sys.executable, script, *arguments], check=True, capture_output=True, text=True).stdout
    return float(out.strip().splitlines()[-1])


def report_peak() -> None:
    """Print this process's peak resident memory in MB as the last line, for `peak_memory` to read."""
    status = Path("/proc/self/status")
    if status.exists():  # the other way counts the parent's peak too, where the parent was larger
        line = next(row for row in status.read_text().splitlines() if row.startswith("VmHWM"))
        print(float(line.split()[1]) / 1024)
        return
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(peak / (1024 * 1024 if sys.platform == "darwin" else 1024))


def matmul_peak(
    dtype: torch.dtype = torch.float32, size: int = 2048, repeats: int = 5, device: torch.device | None = None
) -> float:
    """Best GFLOP/s of a square matrix product here and now: the yardstick for every other speed."""
    a, b = (torch.randn(size, size, dtype=dtype, device=device) for _ in range(2))
    best = float("inf")
    for _ in range(repeats + 1):
        begin = time.perf_counter()
        a @ b
        if a.is_cuda:
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - begin)
    return 2 * size**3 / best / 1e9


def machine() -> str:
    """Return one line that says what was measured on."""
    return (
        f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, torch {torch.__version__}, "
        f"matmul probe {matmul_peak():.0f} GFLOP/s fp32, {matmul_peak(torch.bfloat16):.0f} bf16"
    )
