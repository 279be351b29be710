"""`anomalens pretrain`: make the compact backbone from nothing but packages."""

from pathlib import Path
from typing import Annotated

import typer


def pretrain(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of scenes, checkpoints, log and weights.")],
    materials: Annotated[
        list[Path] | None,
        typer.Option("--materials", help="Folder of texture photographs; may be repeated. None: drawn surfaces alone."),
    ] = None,
    scenes: Annotated[int | None, typer.Option(min=512, help="Training scenes to paint; default: 28,672.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Optimiser steps, more than 100; default: 1,500.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, scenes and machine: same weights.")] = 0,
    initial: Annotated[
        Path | None, typer.Option("--initial", help="checkpoint.pt of another run: a further stage, from its weights.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes that paint scenes.")] = 2,
) -> None:
    """Train the bundled backbone: paint scenes, then align image tokens with words.

    Needs `pip install 'anomalens\\[pretrain]'` and 24 GB of disk; on two cores a quarter of an hour of painting and a
    good hour of training. Stopped? The same command goes on where it was. The log is log.jsonl in --out.

    docs/model-card.md lists the material the shipped weights were made of and how to fetch it.

    Examples:

      anomalens pretrain -o runs/backbone --materials textures

      anomalens detect photos/ -o results --backbone runs/backbone/backbone.safetensors --method anoclip
    """
    from dataclasses import replace

    from anomalens.cli.console import output
    from anomalens_lab.backbone import PretrainConfig
    from anomalens_lab.pretraining import SCENES, pretrain_backbone

    config = PretrainConfig(seed=seed)
    config = replace(config, steps=steps or config.steps)
    path = pretrain_backbone(
        out, materials or (), config=config, scenes=scenes or SCENES, workers=workers, initial=initial
    )
    output.print(f"weights: {path}", highlight=False, markup=False, soft_wrap=True)
