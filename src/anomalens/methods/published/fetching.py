"""Bring a published checkpoint to this machine: fetched, checked, and imported once into the cache.

CACHE/checkpoints/crane-visa/epoch_5.pth          as published; may be put there by hand
CACHE/checkpoints/crane-visa/crane-visa.safetensors      in this project's form, read from then on
"""

from collections.abc import Callable
from dataclasses import dataclass
from os.path import basename, isfile
from pathlib import Path

from anomalens.downloads import fetch, is_offline
from anomalens.errors import WeightsError
from anomalens.files import cache_folder, make_folder
from anomalens.methods.published.table import PublishedCheckpoint, find_published

_OTHER_CACHE = "name another folder for the cache, with ANOMALENS_CACHE"


@dataclass(frozen=True)
class Download:
    """Say what would be fetched, and where it may be put by hand."""

    name: str
    address: str
    # Size in bytes.
    bytes: int
    place: Path
    # Whether it is on this machine, so that nothing is fetched.
    present: bool


def download_of(checkpoint: PublishedCheckpoint) -> Download:
    """Return what would be fetched of a checkpoint. The network is not asked."""
    place = _place(checkpoint)
    file = checkpoint.file
    present = isfile(_imported(checkpoint)) or (isfile(place) and file.difference(place) is None)
    return Download(checkpoint.name, file.address, file.bytes, place, present)


def checkpoint_file(name: str, *, offline: bool, progress: Callable[[int, int], object] | None = None) -> Path:
    """Return a published checkpoint in this project's form, in the cache.

    Args:
        name: "crane:visa".
        offline: never touch the network.
        progress: called with the bytes that have arrived and the bytes there are in all.

    Raises:
        ConfigError: there is no such checkpoint, or nothing can be written to the cache.
        WeightsError: it is not on this machine and cannot be fetched, in a line that says from where and where to put
            it; it is another file than was published.
    """
    # PyTorch is needed only here.
    from anomalens.methods.parts.checkpoints import read_checkpoint, save_checkpoint
    from anomalens.methods.published.importing import import_published

    checkpoint = find_published(name)
    imported = _imported(checkpoint)
    try:
        read_checkpoint(imported)
        return imported
    except WeightsError:
        pass  # not there, or damaged: made anew
    published = _published(checkpoint, offline, progress)
    make_folder(imported.parent, _OTHER_CACHE)
    save_checkpoint(imported, import_published(published, checkpoint.method))
    return imported


def _published(checkpoint: PublishedCheckpoint, offline: bool, progress: Callable[[int, int], object] | None) -> Path:
    """Return the file as published, checked."""
    place, file, label = _place(checkpoint), checkpoint.file, f"the checkpoint {checkpoint.name!r}"
    # `Path.is_file` fails where the cache may not be entered; there nothing is present.
    difference = file.difference(place) if isfile(place) else None
    if isfile(place) and difference is None:
        return place
    if is_offline(offline):
        state = f"{place} {difference}" if difference else f"{label} is not on this machine"
        raise WeightsError(
            f"{state}, and offline nothing is fetched: put the file ({file.size}, from {file.address}) at {place}"
        )
    make_folder(place.parent, _OTHER_CACHE)
    try:
        return fetch(file, place, label=label, progress=progress)
    except WeightsError as error:
        raise WeightsError(f"{error}; or put the file ({file.size}, from {file.address}) at {place}") from error


def _folder(checkpoint: PublishedCheckpoint) -> Path:
    return cache_folder() / "checkpoints" / checkpoint.name.replace(":", "-")


def _place(checkpoint: PublishedCheckpoint) -> Path:
    return _folder(checkpoint) / basename(checkpoint.file.address)


def _imported(checkpoint: PublishedCheckpoint) -> Path:
    return _folder(checkpoint) / f"{checkpoint.name.replace(':', '-')}.safetensors"
