"""How near the towers and the methods come to what the machine can multiply, as shares and ratios in one run.

    python benchmarks/inference.py                          all three towers
    python benchmarks/inference.py --model bundled --repeats 9

Work is counted, not estimated: every product of the pass (attention included), two operations a multiply-add. The peak
is the best square matrix product of the same precision, measured before and after. Random weights do for speed.

Targets: dual path at 80 % of the peak or more in float32, bfloat16 1.7x float32 or more; AnoCLIP and TokenCLIP at most
1.25x a plain pass, Crane 1.6x; AnoCLIP+'s adaptation of a batch at most 5 % of its tower.
"""

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from anomalens.backbones.config import ClipConfig, TextConfig, VisionConfig
from anomalens.backbones.prompt_encoder import PromptEncoder
from anomalens.backbones.registry import find
from anomalens.backbones.streams import Dense
from anomalens.backbones.tower import Clip
from anomalens.backbones.weights import load_weights
from anomalens.methods import base
from measure import interleaved, machine, matmul_peak

BATCH = 8  # images whose adaptation is compared with their tower pass


def attention_flops(query: Any, key: Any, value: Any, *_: object, out_shape: object = None, **__: object) -> int:
    """Count the operations of fused attention on a CPU, which the counter does not know."""
    return int(sdpa_flop_count(query, key, value))


COUNTED = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention_flops}


def model(name: str) -> tuple[Clip, int]:
    """Make a tower and its pixels a side; the text tower, never in the loop, is a stub where the backbone is large."""
    torch.manual_seed(0)
    if name == "bundled":
        loaded = load_weights("bundled")
        return loaded.clip(), loaded.image_size
    if name == "L/14":
        config = ClipConfig(VisionConfig(336, 14, 1024, 24, 16), TextConfig(768, 1, 12), 768)
        return Clip(config).eval().requires_grad_(False), 518
    config = find("ViT-B-16-plus-240").config
    stub = ClipConfig(config.vision, TextConfig(config.joint, 1, 10), config.joint, config.activation)
    return Clip(stub).eval().requires_grad_(False), 240


def detector(name: str, clip: Clip, side: int, **options: Any) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Return the image side of a method and what it does with the features, text known."""
    method = base.create(name, clip.config, **options).eval().requires_grad_(False)
    with torch.inference_mode():
        text = method.text(PromptEncoder(clip), "object")
    return partial(method.encode, clip), lambda features: method.score(features, text, (side, side))


def work(run: Callable[[], object]) -> int:
    """Count the operations of one call."""
    with FlopCounterMode(display=False, custom_mapping=COUNTED) as counter:
        run()
    return int(counter.get_total_flops())


def report(name: str, repeats: int) -> None:
    """Measure one tower and print its table."""
    clip, side = model(name)
    half = Clip(clip.config).eval().requires_grad_(False).bfloat16()
    half.load_state_dict(clip.state_dict())
    pixels = torch.randn(1, 3, side, side)
    candidates: dict[str, Callable[[], object]] = {
        "plain pass": lambda: clip.visual(pixels, (Dense(),)),
        "dual path (value-value)": lambda: clip.visual(
            pixels, (Dense("value-value", max(1, clip.visual.layers // 4)),)
        ),
    }
    for method, options in (("anoclip", {"views": 1}), ("tokenclip", {}), ("crane", {})):
        encode, score = detector(method, clip, side, **options)
        candidates[method] = lambda encode=encode, score=score: score(encode(pixels, (0,)))  # type: ignore[misc]
    candidates["dual path, bfloat16"] = lambda: half.visual(
        pixels, (Dense("value-value", max(1, clip.visual.layers // 4)),)
    )

    def quietly(run: Callable[[], object]) -> object:
        with torch.inference_mode():
            return run()

    runs = {title: partial(quietly, run) for title, run in candidates.items()}
    operations = {title: work(run) for title, run in runs.items()}
    peaks = {kind: matmul_peak(kind) for kind in (torch.float32, torch.bfloat16)}
    seconds = interleaved(runs, repeats)
    peaks = {kind: max(peak, matmul_peak(kind)) for kind, peak in peaks.items()}
    half_peak, full_peak = peaks[torch.bfloat16], peaks[torch.float32]
    print(f"\n{name} at {side} pixels, batch 1, median of {repeats}")
    print(f"peak {full_peak:.0f} GFLOP/s in float32, {half_peak:.0f} in bfloat16\n")
    print("| | ms | GFLOP | of the peak | against a plain pass |\n|---|---|---|---|---|")
    for title, taken in seconds.items():
        peak = half_peak if "bfloat16" in title else full_peak
        share = operations[title] / taken / 1e9 / peak
        ratio = taken / seconds["plain pass"]
        print(f"| {title} | {1000 * taken:.0f} | {operations[title] / 1e9:.1f} | {share:.0%} | {ratio:.2f} |")
    gain = seconds["dual path (value-value)"] / seconds["dual path, bfloat16"]
    print(f"\nbfloat16 is {gain:.2f} times as fast as float32")


def adaptation(name: str, views: int, repeats: int) -> None:
    """Measure what AnoCLIP+'s five steps on a batch cost beside the batch's passes through the tower."""
    clip, side = model(name)
    encode, score = detector("anoclip", clip, side, views=views)
    _, adapted = detector("anoclip+", clip, side, views=views)
    pixels = torch.randn(BATCH, 3, side, side)
    with torch.inference_mode():
        features = encode(pixels, range(BATCH))
        taken = interleaved(
            {
                "tower": lambda: encode(pixels, range(BATCH)),
                "map": lambda: score(features),
                "adapted map": lambda: adapted(features),
            },
            repeats,
        )
    share = (taken["adapted map"] - taken["map"]) / taken["tower"]
    print(
        f"AnoCLIP+ on {name}, batch of {BATCH}, views {views}: adaptation {share:.1%} of the tower's time", flush=True
    )


def main() -> None:
    """Measure every tower asked for, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = ["L/14", "ViT-B-16-plus-240", "bundled"]
    parser.add_argument("--model", nargs="+", choices=names, default=names)
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args()
    print(machine())
    for name in asked.model:
        report(name, asked.repeats)
        for views in () if name == "L/14" else (1, 22):
            adaptation(name, views, asked.repeats)


if __name__ == "__main__":
    main()
