"""Refuse to measure a detector on what it has learned from: such a number would not be zero-shot."""

from collections.abc import Sequence
from pathlib import Path

from anomalens.datasets.catalog import key_of
from anomalens.errors import ConfigError
from anomalens.files import file_key

_REMEDY = "--allow-same-data (allow_same_data=True) measures all the same; keep the result out of any comparison"


def refuse_trained_data(auxiliary: str | None, trained: frozenset[int], dataset: str, images: Sequence[Path]) -> None:
    """Raise ConfigError where a data set, or any of its images under whatever name, was learned from.

    Args:
        auxiliary: names of the data sets learned from, joined by "+" ("visa+clinicdb"); None: nothing was learned.
        trained: `files.file_key` of every image learned from; where it is empty, no image is read.
        dataset: name of the data set to be measured.
        images: its test images.
    """
    learned_from = {key_of(name) for name in (auxiliary or "").split("+") if name.strip()}
    if key_of(dataset) in learned_from:
        raise ConfigError(
            f"the checkpoint was trained on {auxiliary}, so a number on {dataset} would not be zero-shot; use a "
            f"checkpoint trained on other data, or another data set; {_REMEDY}"
        )
    seen = sum(path.is_file() and file_key(path) in trained for path in images) if trained else 0
    if seen:
        raise ConfigError(
            f"{seen} of {len(images)} test images were trained on, so their numbers would not be zero-shot; test on "
            f"other images; {_REMEDY}"
        )
