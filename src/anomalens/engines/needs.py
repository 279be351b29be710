"""Say which files a detector needs that may have to be fetched, without fetching any."""

from collections.abc import Iterator
from dataclasses import dataclass
from os.path import isdir

from anomalens.backbones.hub import cached_folder, find_local, weights_folder
from anomalens.backbones.registry import Published, canonical_name, find, find_image_tower
from anomalens.methods.published.fetching import download_of
from anomalens.methods.published.table import find_published, is_published_name
from anomalens.options import BUNDLED, LoadOptions


@dataclass(frozen=True)
class Need:
    """Describe a file or a hub repository that a detector needs."""

    name: str
    # Where it comes from.
    address: str
    # None where it is not known.
    bytes: int | None
    # Where it may be put by hand.
    place: str
    # Whether nothing will be fetched.
    present: bool


def needs(options: LoadOptions) -> Iterator[Need]:
    """Yield what a detector of these options needs besides what is installed and what is given by its path."""
    if options.backbone != BUNDLED and canonical_name(options.backbone):
        yield _of_weights("weights", find(options.backbone))
    elif tower := find_image_tower(options.backbone):
        yield _of_weights("weights", tower)
    guide = options.method_options.get("guide")
    if isinstance(guide, str) and (tower := find_image_tower(guide)):
        yield _of_weights("guide", tower)
    elif isinstance(guide, str) and guide.count("/") == 1 and not guide.startswith((".", "~")):  # a hub id
        folder = cached_folder(guide)
        yield Need(f"guide {guide}", f"https://huggingface.co/{guide}", None, str(folder), isdir(folder))
    if options.checkpoint is not None and is_published_name(options.checkpoint):
        download = download_of(find_published(options.checkpoint))
        yield Need(
            f"checkpoint {options.checkpoint}", download.address, download.bytes, str(download.place), download.present
        )


def _of_weights(role: str, weights: Published) -> Need:
    place = weights_folder(weights) / weights.files[0].name
    address = f"https://huggingface.co/{weights.hub}"
    return Need(f"{role} {weights.name}", address, weights.bytes, str(place), find_local(weights) is not None)
