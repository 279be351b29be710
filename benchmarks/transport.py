"""Our log-domain transport against Python Optimal Transport (POT), as ratios in one run.

    python benchmarks/transport.py                          8 images of 37 x 37 tokens, 6 subspaces, 100 iterations
    python benchmarks/transport.py --images 1 --epsilon 0.02

Needs POT (`pip install POT`). Target: no slower than POT's log-domain solvers; its plain-kernel solver is shown beside
them with the smallest entropy at which it still gives finite plans.
"""

import argparse
import sys
import warnings

import torch

from anomalens.methods.parts.transport import sinkhorn
from measure import interleaved, machine


def similarities(images: int, tokens: int, subspaces: int) -> torch.Tensor:
    """Draw cosines [B, M, Q] with the spread and imbalance of real ones."""
    generator = torch.Generator().manual_seed(0)
    return 0.2 + 0.05 * torch.randn(images, tokens, subspaces, generator=generator) + torch.linspace(0, 0.1, subspaces)


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=37 * 37)
    parser.add_argument("--subspaces", type=int, default=6)
    parser.add_argument("--epsilon", type=float, default=0.05)
    parser.add_argument("--iterations", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=5)
    asked = parser.parse_args()
    try:
        import ot
        from ot.batch import solve_batch
    except ImportError:
        sys.exit("this benchmark compares with POT: pip install POT")
    warnings.simplefilter("ignore")  # POT says at every call that it stopped early
    s, epsilon, count = similarities(asked.images, asked.tokens, asked.subspaces), asked.epsilon, asked.iterations
    a, b = torch.full((asked.tokens,), 1 / asked.tokens), torch.full((asked.subspaces,), 1 / asked.subspaces)

    def pot(method: str) -> list[torch.Tensor]:
        return [ot.sinkhorn(a, b, 1 - x, epsilon, method=method, numItermax=count, stopThr=0.0) for x in s]

    taken = interleaved(
        {
            "ours, log domain": lambda: sinkhorn(s, epsilon, iterations=count, tolerance=0.0),
            "POT, log domain": lambda: pot("sinkhorn_log"),
            "POT, log domain, batched": lambda: solve_batch(
                1 - s, reg=epsilon, a=a.expand(len(s), -1), b=b.expand(len(s), -1), max_iter=count, tol=0.0
            ),
            "POT, plain kernel": lambda: pot("sinkhorn"),
        },
        asked.repeats,
    )
    print(machine())
    print(
        f"{asked.images} images, {asked.tokens} tokens, {asked.subspaces} subspaces, ε {epsilon}, {count} iterations\n"
    )
    print("| solver | time | ours is faster by |\n|---|---|---|")
    for name, seconds in taken.items():
        print(f"| {name} | {seconds * 1e3:.1f} ms | {seconds / taken['ours, log domain']:.2f} |")
    reference = ot.sinkhorn(a, b, 1 - s[0], epsilon, method="sinkhorn_log", numItermax=count, stopThr=0.0)
    difference = (sinkhorn(s[0], epsilon, iterations=count) - reference).abs().max()
    print(f"\nlargest difference of a plan entry: {difference:.1e}")
    for smaller in (0.05, 0.02, 0.01, 0.005, 0.002):
        plan = ot.sinkhorn(a, b, 1 - s[0], smaller, numItermax=count, stopThr=0.0)
        fit = (plan.sum(1) - a).abs().max() < 0.1 / asked.tokens
        print(f"plain kernel at ε = {smaller}: {'usable' if torch.isfinite(plan).all() and fit else 'underflows'}")


if __name__ == "__main__":
    main()
