"""How fast each method runs on a GPU, and how near it comes to what the GPU multiplies.

    python benchmarks/gpu_speed.py                      every paper's method on ViT-L/14 at 518, batches of 1, 8, 32
    python benchmarks/gpu_speed.py --method crane --batch 8
    python benchmarks/gpu_speed.py --device cpu --size 56 --layers 4 --dtype float32 --batch 1     tries the script

For each method and batch: images a second, work against the best product of square matrices in the same precision (aim
40 % in bfloat16), and speed against the same tower with attention written out, as the papers' repositories compute it.
Then what could make the tower faster, each against the tower as it is: patches in channels-last order, `torch.compile`,
a CUDA graph. What pays by more than a tenth belongs into the engine. Random weights do for speed; work is counted.
"""

import argparse
import sys
from collections.abc import Callable
from functools import partial
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from anomalens.backbones import streams, transformer
from anomalens.backbones.config import ClipConfig, TextConfig, VisionConfig
from anomalens.backbones.prompt_encoder import PromptEncoder
from anomalens.backbones.streams import Dense
from anomalens.backbones.tower import Clip
from anomalens.methods import base
from inference import work
from measure import interleaved, matmul_peak
from tower import written_out

METHODS = ("anoclip", "winclip", "aprilgan", "anomalyclip", "adaclip", "tokenclip", "crane")

Run = Callable[[], object]


def waited(run: Callable[[], Any], device: torch.device) -> Any:
    """Run something without gradients, and wait until the GPU has done it."""
    with torch.inference_mode():
        answer = run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return answer


def method_run(name: str, clip: Clip, pixels: Tensor) -> Run:
    """Return the scoring of a batch of pixels [B, 3, H, W] by a method whose text side is known."""
    options: dict[str, Any] = {"views": 1} if name == "anoclip" else {}
    method = base.create(name, clip.config, **options).to(pixels.device).eval().requires_grad_(False)
    with torch.inference_mode():
        text = method.text(PromptEncoder(clip), "object")
    size, keys = (pixels.shape[-2], pixels.shape[-1]), range(len(pixels))
    return lambda: method.score(method.encode(clip, pixels, keys), text, size)


def with_written_out_attention(run: Run) -> object:
    """Run something with softmax attention whose map stands in memory."""
    with (
        mock.patch.object(streams, "fused_attention", written_out),
        mock.patch.object(transformer, "fused_attention", written_out),
    ):
        return run()


def faster_towers(clip: Clip, pixels: Tensor) -> dict[str, Run]:
    """Return the dual path of the tower as it is, and in ways that may be faster."""
    dense = (Dense("value-value", max(1, clip.visual.layers // 4)),)
    compiled = torch.compile(clip.visual)
    runs: dict[str, Run] = {
        "as it is": lambda: clip.visual(pixels, dense),
        "channels-last": lambda: clip.visual(pixels.contiguous(memory_format=torch.channels_last), dense),
        "torch.compile": lambda: compiled(pixels, dense),
    }
    if pixels.device.type == "cuda":
        runs["CUDA graph"] = recorded(runs["as it is"]).replay
    return runs


def recorded(run: Run) -> torch.cuda.CUDAGraph:
    """Return a graph of what `run` does on the GPU, after a few runs on a stream of their own, as CUDA wants it."""
    with torch.inference_mode():
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                run()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            run()
    return graph


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 8, 32])
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], default="bfloat16")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--size", type=int, default=518)
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--repeats", type=int, default=5)
    asked = parser.parse_args()
    if asked.device.startswith("cuda") and not torch.cuda.is_available():
        sys.exit("no GPU: PyTorch finds none on this machine")
    device, dtype = torch.device(asked.device), getattr(torch, asked.dtype)
    torch.manual_seed(0)
    config = ClipConfig(VisionConfig(336, 14, 1024, asked.layers, 16), TextConfig(768, 12, 12), 768)
    clip = Clip(config).eval().requires_grad_(False).to(device, dtype)
    called = torch.cuda.get_device_name(device) if device.type == "cuda" else "the processor"
    peak = matmul_peak(dtype, size=8192 if device.type == "cuda" else 1024, device=device)
    print(f"{called}, torch {torch.__version__}; {peak / 1000:.2f} TFLOP/s in {asked.dtype}")
    print(f"ViT-L/14, {asked.layers} blocks, {asked.size} px, median of {asked.repeats}\n")
    print("| method | batch | images/s | of the peak | against attention written out |\n|---|---|---|---|---|")
    for batch in asked.batch:
        pixels = torch.randn(batch, 3, asked.size, asked.size, device=device)
        for name in asked.method:
            run = method_run(name, clip, pixels)
            operations = waited(partial(work, run), device)
            taken = interleaved(
                {
                    "own": partial(waited, run, device),
                    "written out": partial(waited, partial(with_written_out_attention, run), device),
                },
                asked.repeats,
            )
            share = operations / taken["own"] / 1e9 / peak
            ratio = taken["written out"] / taken["own"]
            print(f"| {name} | {batch} | {batch / taken['own']:.2f} | {share:.0%} | {ratio:.2f}x |", flush=True)
    print("\n| tower, dual path | batch | images/s | against as it is |\n|---|---|---|---|")
    for batch in asked.batch:
        pixels = torch.randn(batch, 3, asked.size, asked.size, device=device)
        runs = {name: partial(waited, run, device) for name, run in faster_towers(clip, pixels).items()}
        taken = interleaved(runs, asked.repeats)
        for name, seconds in taken.items():
            print(f"| {name} | {batch} | {batch / seconds:.2f} | {taken['as it is'] / seconds:.2f}x |", flush=True)


if __name__ == "__main__":
    main()
