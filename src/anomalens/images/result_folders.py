"""Recognise what this package wrote, so that results are never taken for inputs."""

import os
from collections.abc import Collection
from pathlib import Path, PurePosixPath

from anomalens.untrusted import open_regular

PARTS_OF_A_RUN = ("heatmaps", "masks", "maps", "frames", "rows", "gallery")
"""Folders that a run or an evaluation makes in its own folder."""

INSPECTED = "-inspected.png"
"""How the names of pictures end that `anomalens inspect` writes unless another is given."""
MARK = "anomalens inspect"
"""What stands in these pictures as the software that made them."""
# Bytes at the beginning of a picture in which the mark stands.
_HEAD = 256

# Files or folders that lie together in the folder of a run, and in that of an evaluation.
_SIGNS = (("run.json", "predictions.jsonl"), ("run.json", "rows"), ("metrics.json", "report.json"))


def holds_results(folder: str | os.PathLike[str]) -> bool:
    """Return whether a folder is that of a run or an evaluation."""
    return any(all(os.path.exists(os.path.join(folder, name)) for name in signs) for signs in _SIGNS)


def results_among(names: Collection[str]) -> tuple[str, ...]:
    """Return how the paths of results begin, of files that lie below one folder.

    names: all files below the folder, relative to it, with forward slashes. Where the folder itself is that of a run or
    an evaluation, only the folders made by it count.
    """
    folders = {PurePosixPath(name).parent for name in names}
    folders |= {parent for folder in folders for parent in folder.parents}
    present = {*names, *map(str, folders)}
    begins = set()
    for folder in folders:
        begin = "" if folder == PurePosixPath() else f"{folder}/"
        if any(present.issuperset(begin + name for name in signs) for signs in _SIGNS):
            begins |= {begin} if begin else {f"{name}/" for name in PARTS_OF_A_RUN}
    return tuple(begins)


def is_part_of_results(folder: Path) -> bool:
    """Return whether a folder was made by the run or the evaluation whose folder it lies in."""
    return folder.name in PARTS_OF_A_RUN and holds_results(folder.parent)


def is_saved_prediction(path: Path) -> bool:
    """Return whether a file is a picture of a prediction.

    What `Prediction.save` wrote has two others beside it, what `anomalens inspect` wrote a name and a mark of its own.
    """
    if path.name.endswith(INSPECTED):
        try:
            with open_regular(path) as stream:
                return MARK.encode() in stream.read(_HEAD)
        except OSError:
            return False
    for ending, other in (("_overlay.png", "_mask.png"), ("_mask.png", "_overlay.png")):
        if path.name.endswith(ending):
            stem = path.name.removesuffix(ending)
            return all(path.with_name(stem + end).exists() for end in (other, ".json"))
    return False
