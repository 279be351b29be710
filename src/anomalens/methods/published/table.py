"""List the checkpoints that papers published, and choose one by the rule that nothing is measured on what it learned.

The facts stand in `published_checkpoints.toml`. Nothing here needs PyTorch.
"""

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from anomalens.backbones.config import Activation
from anomalens.backbones.registry import canonical_name
from anomalens.datasets.catalog import key_of
from anomalens.downloads import RemoteFile
from anomalens.errors import ConfigError
from anomalens.methods.references.reference_method import is_reference_method, reference_entry
from anomalens.names import did_you_mean
from anomalens.options import LoadOptions

_BACKBONES = ("ViT-L-14-336", "ViT-L-14-336-gelu")  # the weights that everything published was made with


@dataclass(frozen=True)
class PublishedCheckpoint:
    """Describe a checkpoint that the authors of a method published."""

    method: str
    # Names it among those of its method: "mvtec".
    label: str
    file: RemoteFile
    licence: str
    # Of the tower that it was made with, which may differ from what the weights were trained with.
    activation: Activation
    # Data sets learned from, by the catalogue's keys.
    trained_on: tuple[str, ...]
    # Data sets that the paper used it for; none: all that no other of the method is named for.
    paper_data: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Return the name by which it is asked for: "crane:visa"."""
        return f"{self.method}:{self.label}"

    @property
    def auxiliary_data(self) -> str:
        """Return what was learned from, as a checkpoint's header has it: "visa+clinicdb"."""
        return "+".join(self.trained_on)


def _rows(method: str, facts: dict[str, Any]) -> Iterable[PublishedCheckpoint]:
    repository, entries = facts.pop("repository"), facts.pop("files")
    for entry in entries:
        about = {key: entry.pop(key) for key in ("bytes", "exact", "sha256", "git_blob") if key in entry}
        file = RemoteFile(f"{repository}/{entry.pop('path')}", **about)
        sets = {key: tuple(value) for key, value in entry.items() if key in ("trained_on", "paper_data")}
        yield PublishedCheckpoint(method, file=file, **facts, **(entry | sets))


@cache
def _all() -> tuple[PublishedCheckpoint, ...]:
    text = files("anomalens.methods.published").joinpath("published_checkpoints.toml").read_text(encoding="utf-8")
    return tuple(row for method, facts in tomllib.loads(text).items() for row in _rows(method, facts))


def list_published(method: str | None = None) -> tuple[PublishedCheckpoint, ...]:
    """Return what is published for a method, the default first; for all methods where none is named."""
    return tuple(row for row in _all() if method in (None, row.method))


def find_published(name: str) -> PublishedCheckpoint:
    """Return the checkpoint called "METHOD:LABEL". Raises ConfigError listing those there are."""
    for row in list_published():
        if row.name == name.strip().casefold():
            return row
    method = name.partition(":")[0].strip().casefold()
    names = [row.name for row in list_published(method) or list_published()]
    hint = did_you_mean(name, names)
    raise ConfigError(f"no published checkpoint is called {name!r}{hint}; there are {', '.join(names)}")


def is_published_name(name: str) -> bool:
    """Return whether a text names a published checkpoint and no file: "METHOD:..." of a method that has any."""
    method, colon, _ = name.partition(":")
    return bool(colon) and bool(list_published(method.strip().casefold()))


def choose_published(method: str, data: Iterable[str] = ()) -> PublishedCheckpoint | None:
    """Return the first checkpoint of a method that learned from none of some data sets; None: nothing is published.

    Args:
        method: its name.
        data: names of the data sets to be measured, in any usual spelling; none: the first of the method.

    Raises ConfigError where each learned from one of them.
    """
    rows, keys = list_published(method), {key_of(name) for name in data}
    for row in rows:
        if keys.isdisjoint(row.trained_on):
            return row
    if rows:
        raise ConfigError(
            f"every published checkpoint of {method} was trained on one of {', '.join(sorted(keys))}, so no number "
            "would be zero-shot; measure them one after the other, or name a checkpoint "
            f"({', '.join(row.name for row in rows)})"
        )
    return None


def paper_checkpoint(method: str, data: str) -> PublishedCheckpoint | None:
    """Return the checkpoint by which the paper measured a data set; None where nothing is published for the method."""
    rows, key = list_published(method), key_of(data)
    named = [row for row in rows if key in row.paper_data]
    rest = [row for row in rows if not row.paper_data]
    return next(iter(named or rest), None)


def with_checkpoint(options: LoadOptions, data: Iterable[str] = ()) -> LoadOptions:
    """Return the options with the checkpoint chosen by `choose_published`, where none is named and one applies.

    One applies to a method that is named, on the backbone that the published ones were made with, known by its name.
    """
    if options.checkpoint is not None or canonical_name(options.backbone) not in _BACKBONES:
        return options
    method = options.method
    words = reference_entry(method).build.words if is_reference_method(method) else method
    chosen = choose_published(words or "", data)
    return options.replace(checkpoint=chosen.name) if chosen else options
