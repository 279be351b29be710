"""The dual path of the image tower against attention written out and against a plain pass, as ratios in one run.

    python benchmarks/tower.py                     ViT-L/14 at 518, the whole tower
    python benchmarks/tower.py --size 336 --layers 6

Targets: the dual path at least 2.5x faster than with attention written out, and at most 1.2x a plain pass.
"""

import argparse
from collections.abc import Callable
from unittest import mock

import torch
from torch import Tensor

from anomalens.backbones import streams, transformer
from anomalens.backbones.config import ClipConfig, TextConfig, VisionConfig
from anomalens.backbones.streams import Dense
from anomalens.backbones.tower import Clip
from measure import interleaved, machine, peak_memory, report_peak


def written_out(q: Tensor, k: Tensor, v: Tensor, is_causal: bool = False) -> Tensor:
    """Softmax attention with its map in memory, as the papers' repositories compute it."""
    scores = (q @ k.transpose(-2, -1)) * q.shape[-1] ** -0.5
    if is_causal:
        scores = scores.masked_fill(torch.ones_like(scores, dtype=torch.bool).triu(1), float("-inf"))
    attended: Tensor = scores.softmax(dim=-1) @ v
    return attended


def candidates(size: int, layers: int, dtype: torch.dtype) -> dict[str, Callable[[], object]]:
    """Return what is compared, on one set of random weights."""
    torch.manual_seed(0)
    vision = VisionConfig(image_size=336, patch=14, width=1024, layers=layers, heads=16)
    clip = Clip(ClipConfig(vision, TextConfig(64, 1, 1), 768)).eval().requires_grad_(False).to(dtype)
    pixels = torch.randn(1, 3, size, size)
    # AnomalyCLIP's and Crane's 19 of 24 blocks; every block where the tower was shortened.
    dual = (Dense("value-value", start=max(1, layers - 18)),)

    def run(dense: tuple[Dense, ...]) -> object:
        with torch.inference_mode():
            return clip.visual(pixels, dense)

    def run_written_out() -> object:
        with (
            mock.patch.object(streams, "fused_attention", written_out),
            mock.patch.object(transformer, "fused_attention", written_out),
        ):
            return run(dual)

    return {
        "plain pass, patch tokens read": lambda: run((Dense("plain"),)),
        "dual path (value-value)": lambda: run(dual),
        "dual path, attention written out": run_written_out,
        "dual path (self-correlation)": lambda: run((Dense("self-correlation", start=dual[0].start),)),
    }


def main() -> None:
    """Time all candidates in turn, then the memory of each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=518)
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    runs = candidates(asked.size, asked.layers, getattr(torch, asked.dtype))
    if asked.only:
        runs[asked.only]()
        report_peak()
        return
    seconds = interleaved(runs, asked.repeats)
    shape = ["--size", str(asked.size), "--layers", str(asked.layers), "--dtype", asked.dtype]
    memory = {name: peak_memory(__file__, [*shape, "--only", name]) for name in runs}
    print(f"ViT-L/14, {asked.layers} blocks, {asked.size} px, {asked.dtype}, batch 1, median of {asked.repeats}")
    print(machine(), "\n")
    plain, *_ = seconds.values()
    print("| candidate | seconds | against a plain pass | peak memory, MB |\n|---|---|---|---|")
    for name, taken in seconds.items():
        print(f"| {name} | {taken:.2f} | {taken / plain:.2f}x | {memory[name]:.0f} |")
    ratio = seconds["dual path, attention written out"] / seconds["dual path (value-value)"]
    print(f"\nwritten out / fused: {ratio:.2f}x")


if __name__ == "__main__":
    main()
