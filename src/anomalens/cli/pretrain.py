"""`anomalens pretrain`: make the compact backbone from nothing but packages."""

from pathlib import Path
from typing import Annotated

import typer


def pretrain(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of scenes, checkpoints, log and weights.")],
    materials: Annotated[
        list[Path] | None, typer.Option("--materials", help="Folder of texture photographs; may be repeated.")
    ] = None,
    scenes: Annotated[
        int | None, typer.Option(min=512, help="Training scenes to paint; default: the recipe's.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Optimiser steps; default: the recipe's.")] = None,
    seed: Annotated[int, typer.Option(help="Same seed, scenes and machine: same weights.")] = 0,
    workers: Annotated[int, typer.Option(min=1, help="Processes that paint scenes.")] = 2,
) -> None:
    """Train the bundled backbone: paint scenes, then align image tokens with words. Hours on a CPU.

    Stopped? The same command goes on where it was. The log is log.jsonl in --out. docs/model-card.md lists the
    material the shipped weights were made of and how to fetch it.
    """
    from dataclasses import replace

    from anomalens.cli.console import output
    from anomalens.training.backbone import PretrainConfig
    from anomalens.training.pretraining import SCENES, pretrain_backbone

    config = PretrainConfig(seed=seed)
    config = replace(config, steps=steps or config.steps)
    path = pretrain_backbone(out, materials or (), config=config, scenes=scenes or SCENES, workers=workers)
    output.print(f"weights: {path}", highlight=False)
