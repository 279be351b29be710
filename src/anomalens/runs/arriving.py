"""Notice images as they arrive in a folder, by looking again and again, which works for every file system.

A file has arrived once its size and time are the same at two looks, so that one that is still being copied is waited
for. A file that is replaced arrives again.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import monotonic, sleep

from anomalens.errors import InputError
from anomalens.images.image_files import quoted
from anomalens.images.sources import images_in, natural_key
from anomalens.names import name_text
from anomalens.runs.stream_run import Arrival

# Size in bytes and time of the last change in nanoseconds: another one is another version of the file.
_Version = tuple[int, int]


def arriving_images(
    folder: Path,
    *,
    interval: float,
    until: float | None = None,
    judged: Sequence[str] = (),
    exclude: Sequence[str] = (),
    out: Path | None = None,
) -> Iterator[Arrival]:
    """Yield each image of a folder, and below it, once it has arrived; those that are there first, the oldest first.

    Args:
        folder: where images arrive; it may be empty.
        interval: seconds between two looks.
        until: seconds after which no more are waited for; None waits for ever.
        judged: images that have been answered, as rows name them; they arrive again only when they are replaced.
        exclude, out: as for `find_images`.

    Raises InputError where the folder is missing or cannot be read.
    """
    if not folder.is_dir():
        raise InputError(f"{quoted(folder)}: no such folder; make it first")
    begin = monotonic()
    done: dict[Path, _Version] = {}
    before: dict[Path, _Version] = {}
    known = set(judged)
    while True:
        versions = _versions(images_in(folder, exclude=exclude, out=out))
        for path in [path for path in versions if name_text(path) in known]:
            known.remove(name_text(path))
            done[path] = versions[path]
        arrived = [path for path, version in versions.items() if before.get(path) == version != done.get(path)]
        for path in sorted(arrived, key=lambda path: (versions[path][1], natural_key(path))):
            done[path] = versions[path]
            yield Arrival(path, name_text(path))
        # What is gone is forgotten.
        done = {path: version for path, version in done.items() if path in versions}
        before = versions
        if until is not None and monotonic() - begin >= until:
            return
        sleep(interval)


def _versions(paths: Sequence[Path]) -> dict[Path, _Version]:
    """Return the version of each file that is still there."""
    versions = {}
    for path in paths:
        try:
            status = os.stat(path)
        except OSError:
            continue
        versions[path] = status.st_size, status.st_mtime_ns
    return versions
