"""Options that several commands share, written once so that they mean the same everywhere."""

import inspect
import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from anomalens.errors import ConfigError


class Dtype(StrEnum):
    """Precision of the tower."""

    float32 = "float32"
    bfloat16 = "bfloat16"


Method = Annotated[
    str, typer.Option("--method", help="A method (`anomalens methods`), or a file made by `anomalens export`.")
]
Backbone = Annotated[
    str, typer.Option("--backbone", help="A name (`anomalens backbones`), hub id, folder or file of weights.")
]
ObjectName = Annotated[str, typer.Option("--object", help="What the images show, for the prompts: 'bottle'.")]
Checkpoint = Annotated[Path | None, typer.Option("--checkpoint", help="Learned prompts of a learned method.")]
AnyBackbone = Annotated[
    bool, typer.Option("--any-backbone", help="Use a checkpoint that was learned with other weights.")
]
Size = Annotated[int | None, typer.Option("--size", min=16, help="Side in pixels at which the tower looks.")]
Tile = Annotated[int | None, typer.Option("--tile", min=16, help="Cut images into overlapping tiles of PX pixels.")]
Also = Annotated[
    list[int] | None,
    typer.Option("--also", min=16, help="Look at PX pixels too, and take the mean of all maps; may be repeated."),
]
BatchSize = Annotated[int, typer.Option("--batch-size", min=1, help="Images or tiles in one pass.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1, ...")]
Precision = Annotated[Dtype, typer.Option("--dtype", help="Precision of the tower.")]
Seed = Annotated[int, typer.Option("--seed", help="Seed of methods that draw random numbers (anoclip+).")]
Offline = Annotated[bool, typer.Option("--offline", help="Never touch the network.")]
Set = Annotated[
    list[str] | None, typer.Option("--set", help="An option of the method as NAME=VALUE, for instance views=1.")
]


def method_options(given: list[str] | None) -> dict[str, Any]:
    """["views=1", "adapter=linear"] -> {"views": 1, "adapter": "linear"}.

    Raises ConfigError without a "=", or for what is no option of a method but an argument of `load_detector`.
    """
    from anomalens.detection.detector import load_detector

    taken = set(inspect.signature(load_detector).parameters) - {"options"}
    found = {}
    for text in given or []:
        name, sign, value = text.partition("=")
        if not sign or not name:
            raise ConfigError(f"--set takes NAME=VALUE, not {text!r}")
        if name.strip() in taken:
            raise ConfigError(f"--set {text}: {name.strip()} is no option of a method; see --help for what there is")
        try:
            found[name.strip()] = json.loads(value)
        except json.JSONDecodeError:
            found[name.strip()] = value
    return found
