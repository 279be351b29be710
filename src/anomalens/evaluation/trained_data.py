"""Refuse to measure a detector on what it has learned from: such a number would not be zero-shot."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from anomalens.datasets.catalog import key_of
from anomalens.errors import ConfigError
from anomalens.files import file_key
from anomalens.images.content import content_key
from anomalens.images.decoding import Decoded
from anomalens.threads import map_ordered

_REMEDY = "--allow-same-data (allow_same_data=True) measures all the same; keep the result out of any comparison"


def refuse_trained_data(
    auxiliary: str | None, trained: frozenset[int], dataset: str, images: Sequence[Path], likely: Iterable[str] = ()
) -> None:
    """Raise ConfigError where a data set, or any of its images under whatever name, was learned from.

    Args:
        auxiliary: names of the data sets learned from, joined by "+" ("visa+clinicdb"); None: nothing was learned.
        trained: `files.file_key` of every image learned from; where it is empty, no image is read.
        dataset: name of the data set to be measured.
        images: its test images.
        likely: keys of benchmarks that it may be under another name (`catalog.keys_of`). They count where the images
            learned from are not known, as with what papers published.
    """
    learned_from = {key_of(name) for name in (auxiliary or "").split("+") if name.strip()}
    keys = {key_of(dataset), *(() if trained else likely)}
    if keys & learned_from:
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


def refuse_taught_photos(taught: Sequence[int], images: Sequence[Path], read: Callable[[Path], Decoded]) -> None:
    """Raise ConfigError where test images are among the photographs that a part was taught with.

    Args:
        taught: `content_key` of each photograph.
        images: of the test; those that cannot be read are passed over.
        read: decodes an image as the photographs were decoded.
    """
    keys = set(taught)
    same = 0
    for _, decoded in map_ordered(images, read, workers=2, ahead=4):
        same += isinstance(decoded, Decoded) and content_key(decoded.rgb) in keys
    if same:
        raise ConfigError(
            f"{same} of {len(images)} test images are among the {len(keys)} photos that the part was taught with, so "
            f"they would look perfect; test on other images; {_REMEDY}"
        )
