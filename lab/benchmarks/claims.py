"""The papers' claims on the bundled backbone: what each part of a method is worth, over seeds, in two regimes.

    python lab/benchmarks/claims.py ../shared/data runs/claims
    python lab/benchmarks/claims.py ../shared/data runs/claims --family tokenclip --seeds 1

Regimes: "procedural" learns from drawn scenes and is tested on every real class; "real" learns from magnetic tiles,
cookies and roads and is tested on the other classes. Test images never choose anything. Each number is the mean over
the classes that have it, given as mean and standard deviation over seeds (the population's, of three values).

Results are kept in WORK/claims.jsonl as they come, so a stopped run goes on; the tables are printed at the end.
"""

import argparse
import hashlib
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from anomalens.backbones.prompt_encoder import PromptEncoder
from anomalens.backbones.streams import Dense, StreamName
from anomalens.backbones.weights import LoadedWeights, load_weights
from anomalens.datasets.layouts import Sample, open_dataset
from anomalens.images.preprocessing import Preprocess
from anomalens.learning.features import Cached, build, cache_key
from anomalens.learning.training import TrainingPlan, train
from anomalens.methods import anoclip, base
from anomalens.methods.base import Method
from anomalens.methods.parts import ensembles
from anomalens.methods.parts.checkpoints import load_method, read_checkpoint
from anomalens.metrics.accumulator import PixelAccumulator
from anomalens.metrics.summary import summarise
from anomalens.options import BUNDLED
from anomalens_lab import ship as shipped

METRICS = ("image_auroc", "pixel_auroc", "aupro")
LEARNED_FROM = ("magnetic_tile", "cookie", "road")  # classes of the "real" regime's auxiliary data
PER_CLASS = 120  # images a class gives to that regime
SCENES = 192  # of the "procedural" regime
EPOCHS = 5
RATES = {name: plan.lr for name, plan in shipped.PLANS.items()}


@dataclass(frozen=True)
class Variant:
    """Describe one row of a table."""

    family: str  # tokenclip | sweeps | crane | anoclip
    name: str
    method: str
    learned: dict[str, Any] = field(default_factory=dict)  # options while learning
    used: dict[str, Any] = field(default_factory=dict)  # options changed afterwards
    lr: float | None = None  # None: the recipe's that the shipped prompts were learned with


VARIANTS = [
    Variant("tokenclip", "TokenCLIP (Q = 6, k = 2)", "tokenclip"),
    Variant("tokenclip", "Q = 1", "tokenclip", {"subspaces": 1, "k": 1}),
    Variant("tokenclip", "greedy, k = 1", "tokenclip", {"columns": "free", "k": 1}),
    Variant("tokenclip", "greedy, k = 2", "tokenclip", {"columns": "free"}),
    Variant("tokenclip", "learning rate 1e-3, as for the prompts of AnomalyCLIP", "tokenclip", lr=1e-3),
    Variant("tokenclip", "AnomalyCLIP", "anomalyclip"),
    *(Variant("sweeps", f"k = {k} of Q = 6", "tokenclip", {"k": k}) for k in (1, 3, 6)),
    *(Variant("sweeps", f"Q = {q}, k = 2", "tokenclip", {"subspaces": q}) for q in (2, 4, 12)),
    Variant("crane", "Crane (context while learning)", "crane"),
    Variant("crane", "context while learning and in use", "crane", {}, {"context": True}),
    Variant("crane", "no context", "crane", {"train_context": False}),
    Variant("crane", "no pooling", "crane", {"pooling": 0.0}),
    Variant("crane", "value-value instead of self-correlation", "crane", {"stream": "value-value"}),
    Variant("crane", "ordinary tokens", "crane", {"stream": "plain"}),
]


class Bench:
    """Hold the backbone, the test images' features and the training data, made once."""

    def __init__(self, data: Path, work: Path) -> None:
        self.work = work
        self.loaded: LoadedWeights = load_weights(BUNDLED)
        self.clip = self.loaded.clip()
        self.encoder = PromptEncoder(self.clip, self.loaded.hash)
        self.real: dict[str, list[Sample]] = {}
        for folder in sorted(p for p in data.iterdir() if p.is_dir()):
            for sample in open_dataset(f"mvtec:{folder}").samples():
                if sample.split == "test" and not (sample.label == 1 and sample.mask is None):
                    self.real.setdefault(sample.class_name, []).append(sample)

    def auxiliary(self, regime: str) -> list[Sample]:
        """Return what a regime learns from."""
        if regime == "procedural":
            place = shipped.scenes(self.work / "scenes", SCENES, self.loaded.image_size)
            return list(open_dataset(place).samples())
        chosen = []
        for name in LEARNED_FROM:
            samples = self.real[name]
            chosen += samples[:: -(-len(samples) // PER_CLASS)]
        return chosen

    def tested(self, regime: str) -> dict[str, list[Sample]]:
        """Return what it is tested on, by class."""
        return {n: s for n, s in self.real.items() if regime == "procedural" or n not in LEARNED_FROM}

    def features(self, method: Method) -> tuple[list[Sample], Cached]:
        """Compute features of all test images as `method` reads them."""
        samples = [s for group in self.real.values() for s in group]
        loaded = self.loaded
        patch, pixels = loaded.config.vision.patch, loaded.pixels
        how = Preprocess(loaded.image_size, pixels.mean, pixels.std, method.interpolation, "squash", patch)
        folder = self.work / "features" / cache_key(method, loaded.hash, samples, how)
        return samples, build(folder, method, self.clip, samples, how)

    def scored(self, method: Method, text: Any, regime: str, batch: int = 8) -> dict[str, float]:
        """Mean over classes of each metric, maps at the size of the tower's input."""
        samples, source = self.features(method)
        rows: dict[str, list[float]] = {metric: [] for metric in METRICS}
        for name in self.tested(regime):
            numbers = [i for i, sample in enumerate(samples) if sample.class_name == name]
            pixels, scores, labels = PixelAccumulator("histogram"), [], []
            for start in range(0, len(numbers), batch):
                chosen = numbers[start : start + batch]
                evaluated = source.batch(chosen)
                features = evaluated.features
                if isinstance(method, anoclip.AnoCLIP):
                    keys = tuple(chosen)
                    features = anoclip.TileFeatures(features.cls, features.dense, features.grid, keys=keys)
                with torch.inference_mode():
                    result = method.score(features, text, (evaluated.masks.shape[-2], evaluated.masks.shape[-1]))
                pixels.update(result.map.numpy(), evaluated.masks.numpy() > 0.5)
                scores += result.score.tolist()
                labels += evaluated.labels.tolist()
            values = summarise(np.array(scores), np.array(labels), pixels)
            for metric in METRICS:
                if (value := values[metric]) is not None:
                    rows[metric].append(value)
        return {metric: statistics.fmean(values) for metric, values in rows.items()}


def learned(bench: Bench, variant: Variant, regime: str, seed: int) -> dict[str, float]:
    """Learn a variant, or take what is there, and score it."""
    key = json.dumps([variant.method, variant.learned, variant.lr, regime, seed, bench.loaded.hash], sort_keys=True)
    # Variants that differ in use alone share what they have learned.
    out = bench.work / f"{variant.method}-{hashlib.sha256(key.encode()).hexdigest()[:12]}.safetensors"
    if not out.exists():
        plan = TrainingPlan(epochs=EPOCHS, lr=variant.lr or RATES.get(variant.method), seed=seed)
        train(
            variant.method,
            bench.auxiliary(regime),
            bench.loaded,
            out,
            auxiliary_data=regime,
            plan=plan,
            options=variant.learned,
            cache=bench.work / "features",
        )
    method = load_method(read_checkpoint(out), bench.loaded, variant.method, **variant.used)
    with torch.inference_mode():
        text = method.text(bench.encoder, "object")
    return bench.scored(method, text, regime)


@dataclass(frozen=True)
class Untrained:
    """Describe AnoCLIP by tokens, prompts and steps of the adaptation, which alone draws random numbers."""

    stream: StreamName
    prompts: str  # general | domain-aware
    steps: int

    @property
    def name(self) -> str:
        """Return the name of the table's row."""
        tokens = "q-k" if self.stream == "plain" else "v-v"
        return f"{tokens} tokens, {self.prompts} prompts, {self.steps} steps"

    def scored(self, bench: Bench, seed: int) -> dict[str, float]:
        """Compute its metrics."""
        adapting: dict[str, Any] = {"adapt": self.steps > 0, "steps": max(1, self.steps), "seed": seed}
        method = base.create("anoclip", bench.loaded.config, views=1, **adapting)
        method.dense = (Dense(self.stream).resolve(bench.loaded.config.vision.layers),)
        with torch.inference_mode():
            text = method.text(bench.encoder, "object")
            if self.prompts == "general":
                general = ensembles.winclip("object")
                raw = bench.encoder(general.prompts)
                text = anoclip.TextSide("object", general.directions(raw), torch.nn.functional.normalize(raw, dim=-1))
        return bench.scored(method, text, "procedural")


UNTRAINED = [
    Untrained(stream, prompts, steps)
    for stream in ("plain", "value-value")
    for prompts in ("general", "domain-aware")
    for steps in (0, 1, 5)
]


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return Markdown: mean ± spread over seeds."""
    lines = ["| | seeds | image AUROC | pixel AUROC | AUPRO |", "|---|---|---|---|---|"]
    for name in dict.fromkeys(row["name"] for row in rows):
        chosen = [row for row in rows if row["name"] == name]
        cells = []
        for metric in METRICS:
            values = [row[metric] for row in chosen]
            spread = f" ± {statistics.pstdev(values):.1f}" if len(values) > 1 else ""
            cells.append(f"{statistics.fmean(values):.1f}{spread}")
        lines.append(f"| {name} | {len(chosen)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Run what is missing, then print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of data sets in MVTec layout")
    parser.add_argument("work", type=Path, help="folder for scenes, features, checkpoints and results")
    parser.add_argument("--family", nargs="+", default=["anoclip", "tokenclip", "crane", "sweeps"])
    parser.add_argument("--regime", nargs="+", default=["procedural", "real"])
    parser.add_argument("--seeds", type=int, default=3)
    asked = parser.parse_args()
    asked.work.mkdir(parents=True, exist_ok=True)
    bench, kept = Bench(asked.data, asked.work), asked.work / "claims.jsonl"
    rows = [json.loads(line) for line in kept.read_text().splitlines()] if kept.exists() else []
    rows = [row for row in rows if row["weights"] == bench.loaded.hash]

    def keep(row: dict[str, Any]) -> None:
        rows.append(row | {"weights": bench.loaded.hash})
        with kept.open("a") as stream:
            stream.write(json.dumps(rows[-1]) + "\n")
        print(row, flush=True)

    for rule in UNTRAINED if "anoclip" in asked.family else ():
        for seed in range(asked.seeds if rule.steps else 1):
            place = {"family": "anoclip", "regime": "none", "name": rule.name, "seed": seed}
            if not any(place.items() <= row.items() for row in rows):
                keep(place | rule.scored(bench, seed))
    for regime in asked.regime:
        for seed in range(asked.seeds):
            for variant in VARIANTS:
                place = {"family": variant.family, "regime": regime, "name": variant.name, "seed": seed}
                swept = variant.family == "sweeps" and regime != "procedural"
                if swept or variant.family not in asked.family or any(place.items() <= row.items() for row in rows):
                    continue
                keep(place | learned(bench, variant, regime, seed))
    for family, regime in dict.fromkeys((row["family"], row["regime"]) for row in rows):
        print(f"\n{family}, {regime}\n")
        print(table([row for row in rows if (row["family"], row["regime"]) == (family, regime)]))


if __name__ == "__main__":
    main()
