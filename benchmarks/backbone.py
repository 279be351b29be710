"""The bundled backbone's dual path at 448 pixels against ViT-B/16-plus at 240, as a ratio in one run, with memory.

    python benchmarks/backbone.py
    python benchmarks/backbone.py --size 320 --threads 2

Target: under a quarter of the time of ViT-B/16-plus (LAION-400M, AnoCLIP's backbone) at its 240 pixels.
"""

import argparse
from collections.abc import Callable

import torch

from anomalens.backbones.registry import find
from anomalens.backbones.streams import Dense
from anomalens.backbones.tower import Clip
from anomalens.backbones.weights import load_weights
from measure import interleaved, machine, peak_memory, report_peak

DUAL = (Dense("value-value"),)


def tower(name: str, size: int) -> Callable[[], object]:
    """Make a run of one image through the dual path. The weights are random: no time depends on their values."""
    torch.manual_seed(0)
    if name == "bundled":
        loaded = load_weights("bundled")
        clip = loaded.clip()
    else:
        clip = Clip(find(name).config).eval().requires_grad_(False)
    pixels = torch.randn(1, 3, size, size)

    def run() -> object:
        with torch.inference_mode():
            return clip.visual(pixels, DUAL)

    return run


def main() -> None:
    """Time both in turn, then the memory of each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=448, help="side of the bundled backbone's image, pixels")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", help="run one candidate once and print its peak memory")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    sizes = {"bundled": arguments.size, "ViT-B-16-plus-240": 240}
    if arguments.only:
        tower(arguments.only, sizes[arguments.only])()
        report_peak()
        return
    print(machine())
    # First of all: a process begins with its parent's peak, so this one must still be small.
    memory = {name: peak_memory(__file__, ["--only", name, "--size", str(arguments.size)]) for name in sizes}
    taken = interleaved({name: tower(name, size) for name, size in sizes.items()}, arguments.repeats)
    for name, seconds in taken.items():
        print(f"{name:20s} at {sizes[name]}: {1000 * seconds:7.1f} ms, peak {memory[name]:6.0f} MB")
    ratio = taken["bundled"] / taken["ViT-B-16-plus-240"]
    print(f"bundled / ViT-B-16-plus-240: {ratio:.3f} (target below 0.25)")


if __name__ == "__main__":
    main()
