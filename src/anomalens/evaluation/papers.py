"""State how each paper's authors measured their method, so that the same can be run here. The facts: `papers.toml`."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from anomalens.errors import ConfigError
from anomalens.evaluation.evaluator import EvaluationConfig
from anomalens.names import did_you_mean
from anomalens.options import BUNDLED, LoadOptions
from anomalens.typed_values import build


@dataclass(frozen=True)
class OnlyOn:
    """State what a paper does on certain data sets alone."""

    # Keys of the catalogue.
    on: tuple[str, ...]
    options: Mapping[str, Any] | None = None
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Paper:
    """Describe how a method is measured in its paper; `papers.toml` explains the fields."""

    method: str
    paper: str
    backbone: str
    size: int
    evaluation_size: int
    class_names: bool
    # In percentage points: of a mean over classes, and of a single class.
    tolerance: tuple[float, float]
    because: str
    options: Mapping[str, Any] | None = None
    random: bool = False
    train_on: Mapping[str, str] | None = None
    trapezoid_ap: bool = False
    remarks: tuple[str, ...] = ()
    only: tuple[OnlyOn, ...] = ()

    def options_on(self, data: str) -> dict[str, Any]:
        """Return the options of the method on a data set, given by its key."""
        options = dict(self.options or {})
        for part in self._only_on(data):
            options |= part.options or {}
        return options

    def remarks_on(self, data: str) -> tuple[str, ...]:
        """Return what differs from the authors' run on a data set and stands in no setting, a sentence each."""
        return (*self.remarks, *(remark for part in self._only_on(data) for remark in part.remarks))

    def learned_from(self, data: str) -> str | None:
        """Return the key of the data set that is trained on before `data` is measured; None where nothing is."""
        return None if self.train_on is None else self.train_on.get(data, self.train_on["default"])

    def load_options(self, data: str, base: LoadOptions) -> LoadOptions:
        """Return `base` with the paper's method, size and options; its weights where `base` names the bundled ones."""
        return base.replace(
            method=self.method,
            backbone=self.backbone if base.backbone == BUNDLED else base.backbone,
            size=self.size,
            method_options=self.options_on(data) | dict(base.method_options),
        )

    def evaluation(self) -> EvaluationConfig:
        """Return the settings of the evaluation; no pictures are kept."""
        return EvaluationConfig(size=self.evaluation_size, class_names=self.class_names, gallery=0)

    def _only_on(self, data: str) -> list[OnlyOn]:
        return [part for part in self.only if data in part.on]


@cache
def papers() -> dict[str, Paper]:
    """Return what is known of each method, by its name, in the order of the file."""
    text = files("anomalens.evaluation").joinpath("papers.toml").read_text(encoding="utf-8")
    return {name: build(Paper, {"method": name} | entry, name) for name, entry in tomllib.loads(text).items()}


def find_papers(name: str) -> list[Paper]:
    """Return the paper of a method, or of all methods for "all". Raises ConfigError naming those there are."""
    if name == "all":
        return list(papers().values())
    if name not in papers():
        hint = did_you_mean(name, [*papers(), "all"])
        raise ConfigError(f"no published protocol is known for {name!r}{hint}; known: {', '.join(papers())}, all")
    return [papers()[name]]
