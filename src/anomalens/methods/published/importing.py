"""Turn what authors published into checkpoints of this project. Nothing in a file is run.

The content says which method wrote a file. A file of the table (`published_checkpoints.toml`) is known by its hash, and
with it what it was trained on; what a caller claims against either is refused.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from anomalens.backbones.weight_files import load_torch
from anomalens.datasets.catalog import key_of
from anomalens.errors import ConfigError, WeightsError
from anomalens.methods import base
from anomalens.methods.parts.checkpoints import Checkpoint, CheckpointInfo
from anomalens.methods.parts.openai_tokens import BACKBONE, WIDTH
from anomalens.methods.published import map_layout, prompt_layout
from anomalens.methods.published.learned_numbers import LearnedNumbers
from anomalens.methods.published.table import PublishedCheckpoint, list_published


def import_published(
    path: str | os.PathLike[str], method: str | None = None, auxiliary_data: str | None = None
) -> Checkpoint:
    """Read what authors published; `save_checkpoint` writes it in this project's form.

    Args:
        path: the `.pth` file.
        method: the method that it is of; None takes what its content or its hash say. Prompts of Crane and of Crane+
            have one form and may be used for either.
        auxiliary_data: what it was trained on ("mvtec", "visa+clinicdb"); None takes what is known of the file.

    Raises:
        ConfigError: a method whose authors publish nothing, what is known of the file contradicts, or Crane's and
            Crane+'s prompts cannot be told apart.
        WeightsError: no such file, damaged, of another form, or made with another backbone.
    """
    if method is not None and not list_published(method):
        names = dict.fromkeys(row.method for row in list_published())
        raise ConfigError(f"published files can be imported for {', '.join(names)}, not for {method!r}")
    content = load_torch(Path(path))
    try:
        methods, read = _layout(content)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from error
    known = recognise(path)
    _check_claims(path, methods, known, method, auxiliary_data)
    try:
        numbers = read(content)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from error
    name = method or (known.method if known else methods[0])
    if method is None and known is None and len(methods) > 1:
        raise ConfigError(
            f"{path}: prompts of {' and '.join(methods)} have one form, and this file is none of the published ones; "
            "say which it is with --method"
        )
    return _checkpoint(path, name, numbers, known, auxiliary_data)


def recognise(path: str | os.PathLike[str]) -> PublishedCheckpoint | None:
    """Return the entry of the table whose size and hash a file has; None where none has."""
    return next((row for row in list_published() if row.file.difference(Path(path)) is None), None)


def _layout(content: Any) -> tuple[tuple[str, ...], Callable[[Mapping[str, Any]], LearnedNumbers]]:
    """Return the methods that write such content, and the function that reads it. Raises WeightsError for all else."""
    if isinstance(content, dict):
        if prompt_layout.KEY in content:
            return prompt_layout.methods_of(content), prompt_layout.read_prompts
        if map_layout.APRILGAN_KEY in content:
            return ("aprilgan",), map_layout.read_aprilgan
        if map_layout.is_adaclip(content):
            return ("adaclip",), map_layout.read_adaclip
    raise WeightsError(
        'expected {"prompt_learner": tensors}, as Crane and AnomalyCLIP publish, {"trainable_linearlayer": tensors}, '
        "as APRIL-GAN does, or AdaCLIP's tensors; found something else"
    )


def _check_claims(
    path: str | os.PathLike[str],
    methods: tuple[str, ...],
    known: PublishedCheckpoint | None,
    method: str | None,
    auxiliary_data: str | None,
) -> None:
    """Raise ConfigError where a claim contradicts what a file's content or its hash say."""
    if method is not None and method not in methods:
        raise ConfigError(
            f"{path}: its content is that of {' or '.join(methods)}, not of {method!r}; leave --method out, or give "
            f"{(known.method if known else methods[0])!r}"
        )
    claimed = {key_of(name) for name in (auxiliary_data or "").split("+") if name.strip()}
    if known and claimed and claimed != set(known.trained_on):
        raise ConfigError(
            f"{path}: it is {known.name}, trained on {known.auxiliary_data!r}, not on {auxiliary_data!r}; leave the "
            "name out"
        )


def _checkpoint(
    path: str | os.PathLike[str],
    method: str,
    numbers: LearnedNumbers,
    known: PublishedCheckpoint | None,
    auxiliary_data: str | None,
) -> Checkpoint:
    row = known or list_published(method)[0]
    base.entry(method).config(**numbers.config)
    info = CheckpointInfo(
        method=method,
        config=numbers.config,
        backbone=BACKBONE if numbers.text_width == WIDTH else f"text width {numbers.text_width}",
        weights="",
        auxiliary_data=auxiliary_data or (known.auxiliary_data if known else "not known"),
        licence=row.licence,
        training={"published": known.name if known else Path(path).name, "activation": row.activation},
    )
    return Checkpoint(
        info, numbers.learned, token_ids=numbers.token_ids, token_rows=numbers.token_rows, source=str(path)
    )
