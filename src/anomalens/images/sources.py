"""Turn what a user names (files, folders, patterns) into a list of images; tell one image from several."""

import fnmatch
import functools
import glob
import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

from PIL import Image

from anomalens.errors import InputError
from anomalens.images.image_files import quoted
from anomalens.images.result_folders import PARTS_OF_A_RUN, holds_results, is_part_of_results, is_saved_prediction
from anomalens.names import at_home

# fmt: off
IMAGE_SUFFIXES = frozenset({
    ".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".tif", ".tiff", ".bmp", ".dib",
    ".gif", ".webp", ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".jpx", ".avif",
})
"""Suffixes (in lower case) that count as images inside a folder; a file named itself may be called anything."""
HEIF_SUFFIXES = frozenset({".heic", ".heif", ".hif"})
"""Suffixes of photographs that count as images where the package pillow-heif is installed."""

# What may be meant as an image and is none, by what to call it.
_FOREIGN = {
    "video": {".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".wmv", ".mpg", ".mpeg", ".mts", ".3gp", ".flv"},
    "camera raw file": {".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".raf", ".rw2", ".pef", ".raw"},
    "picture of a kind that is not read": {
        ".psd", ".svg", ".eps", ".pdf", ".ico", ".tga", ".exr", ".hdr", ".jxl", ".dcm", ".xcf", ".pcx", ".dds", ".sgi",
    },
}
_FOREIGN_KINDS = {suffix: kind for kind, suffixes in _FOREIGN.items() for suffix in suffixes}
# fmt: on
JUNK_FOLDERS = frozenset({"@eadir", "__macosx", "#recycle", "$recycle.bin", "system volume information", "lost+found"})
"""Folders (in lower case) that systems make for themselves: thumbnails, copies, bins. They are passed over."""

_HOW_PATTERNS_COUNT = "a pattern is compared with names, or with paths from the folder that is named"

logger = logging.getLogger("anomalens")


def is_image_input(value: object) -> bool:
    """Return whether `value` is one image rather than several (a folder, a pattern, a sequence, a batch).

    One image is a path that is no folder or pattern, the bytes of a file, an open file, a PIL image, and an array or
    tensor of at most 3 dimensions, unless it holds names.
    """
    if isinstance(value, (str, os.PathLike)):
        path = at_home(value)
        return not os.path.isdir(path) and (os.path.lexists(path) or not glob.has_magic(os.fspath(path)))
    if isinstance(value, (bytes, bytearray, memoryview, Image.Image)) or hasattr(value, "read"):
        return True
    # Arrays and tensors have `ndim`; an array of text or objects is a list of paths.
    dimensions = getattr(value, "ndim", None)
    return dimensions is not None and dimensions <= 3 and not (holds_names(value) and dimensions > 0)


def holds_names(value: object) -> bool:
    """Return whether `value` is a numpy array of text, bytes or objects rather than of pixels."""
    return getattr(getattr(value, "dtype", None), "kind", "") in ("U", "S", "O")


@dataclass
class Listing:
    """Hold the images that were found, and counts of what was passed over."""

    images: list[Path] = field(default_factory=list)
    # Counts of what was passed over, by what it is: "image in a folder of results (p/out)".
    left_out: Counter[str] = field(default_factory=Counter)
    # Patterns of --exclude that fit nothing.
    idle: tuple[str, ...] = ()

    def remarks(self) -> list[str]:
        """Return a line of text for each kind of thing that was left out."""
        counts = [f"left out: {count} x {kind}" for kind, count in self.left_out.items() if count]
        return counts + [f"--exclude {pattern!r} fits nothing: {_HOW_PATTERNS_COUNT}" for pattern in self.idle]

    def log(self) -> None:
        """Write what was left out to the log "anomalens", as warnings."""
        for remark in self.remarks():
            logger.warning("%s", remark)


@dataclass(frozen=True)
class Choice:
    """Decide what of a folder counts as input."""

    # Patterns of names to leave out; see `find_images`.
    exclude: tuple[str, ...] = ()
    # Folder of the results to come.
    out: Path | None = None
    # The patterns that have fitted something.
    used: set[str] = field(default_factory=set)

    @property
    def idle(self) -> tuple[str, ...]:
        """Return the patterns that have fitted nothing yet."""
        return tuple(pattern for pattern in self.exclude if pattern not in self.used)

    def excludes(self, relative: str) -> bool:
        """Return whether a path relative to the folder named, with forward slashes, is left out by a pattern."""
        for pattern in self.exclude:
            wanted = pattern.removeprefix("./").strip("/")
            if "/" in wanted or pattern.startswith(("/", "./")):
                excluded = fnmatch.fnmatchcase(relative, wanted) or fnmatch.fnmatchcase(relative, f"{wanted}/*")
            else:
                excluded = any(fnmatch.fnmatchcase(part, wanted) for part in relative.split("/"))
            if excluded:
                self.used.add(pattern)
                return True
        return False

    def is_result(self, folder: Path) -> bool:
        """Return whether a folder met below one that was named holds results, or is where they will be."""
        if holds_results(folder) or is_part_of_results(folder):
            return True
        if self.out is None:
            return False
        out = os.path.realpath(self.out)
        place = os.path.realpath(folder)
        return place == out or (folder.name in PARTS_OF_A_RUN and os.path.dirname(place) == out)


def find_images(
    inputs: Sequence[str | os.PathLike[str]],
    *,
    exclude: Sequence[str] = (),
    out: str | os.PathLike[str] | None = None,
) -> Listing:
    """Return every image that `inputs` name, in the order given, and what was left out.

    A file is taken as it is, whatever its suffix. A folder gives all images in it and below it, in natural order
    (`part2` before `part10`), without hidden ones; links are followed, loops are not. A pattern (`*`, `?`, `[...]`,
    `**` for any depth) gives the images and folders it matches; a name that exists is never read as a pattern, nor is
    a folder in it. `~` is the home folder. What is named twice comes twice; of several ways to one file inside a
    folder or pattern one counts.

    Results are no inputs: `out` and every folder below those named that holds a run or an evaluation are left out,
    and so is what a run made in a folder that is named itself.

    Args:
        exclude: patterns of what to leave out. One without a slash is compared with the name of every file and folder
            below what is named ("*_mask.png", "old"), one with a slash with the path from there ("day1/*.png").
        out: folder that results will be written to.

    Raises InputError for a path that does not exist, a folder that cannot be read, and a folder or pattern without
    images.
    """
    listing = Listing()
    choice = Choice(tuple(exclude), None if out is None else Path(out))
    for name in inputs:
        if not os.fspath(name):
            # A folder would be read that nobody named.
            raise InputError("'': an empty name names no file or folder")
        path = at_home(name)
        before = len(listing.images)
        if path.is_dir():
            if is_part_of_results(path):
                raise InputError(f"{quoted(path)}: these are results; name the images that they were made from")
            listing.images += _in_folder(path, choice, listing.left_out)
            if len(listing.images) == before:
                raise InputError(f"{quoted(path)}: no images in this folder or below it ({_why(path, listing)})")
        elif os.path.lexists(path):
            # Also a broken link: it fails on its own row when it is decoded.
            if choice.excludes(path.name):
                listing.left_out["image by --exclude"] += 1
            else:
                listing.images.append(path)
        elif glob.has_magic(str(path)):
            listing.images += _matching(path, choice, listing.left_out)
            if len(listing.images) == before:
                raise InputError(f"{quoted(path)}: no image matches this pattern ({_why(None, listing)})")
        else:
            raise InputError(f"{quoted(path)}: no such file or folder")
    listing.idle = choice.idle
    return listing


def images_in(folder: Path, *, exclude: Sequence[str] = (), out: Path | None = None) -> list[Path]:
    """Return the images in a folder and below it, maybe none, as `find_images` chooses and sorts them.

    Raises InputError where a folder cannot be read.
    """
    return _in_folder(folder, Choice(tuple(exclude), out), Counter())


def list_images(
    inputs: Sequence[str | os.PathLike[str]],
    *,
    exclude: Sequence[str] = (),
    out: str | os.PathLike[str] | None = None,
) -> list[Path]:
    """Return the images of `find_images`; what was left out is a warning in the log "anomalens"."""
    listing = find_images(inputs, exclude=exclude, out=out)
    listing.log()
    return listing.images


def is_image_name(name: str) -> bool:
    """Return whether a file name is visible and has an image's suffix, whatever its case."""
    suffix = Path(name).suffix.lower()
    return not name.startswith(".") and (suffix in IMAGE_SUFFIXES or (suffix in HEIF_SUFFIXES and reads_heif()))


def reads_heif() -> bool:
    """Return whether the package that reads HEIC photographs is installed."""
    return find_spec("pillow_heif") is not None


def is_input_folder(path: Path) -> bool:
    """Return whether a folder may hold inputs: it is visible, not made by the system, and holds no results."""
    return is_visible_folder(path.name) and not holds_results(path)


def is_visible_folder(name: str) -> bool:
    """Return whether the name of a folder says neither that it is hidden nor that a system made it for itself."""
    return not name.startswith(".") and name.casefold() not in JUNK_FOLDERS


def natural_key(path: str | os.PathLike[str]) -> list[tuple[list[tuple[int, int, str]], str]]:
    """Return a sort key that reads runs of digits as numbers, folder by folder: `a/part2` < `a/part10` < `b`."""
    # The plain text comes last, so that `01` and `1`, `A` and `a` still have one fixed order.
    return [([_piece(run) for run in re.split(r"(\d+)", part) if run], part) for part in Path(path).parts]


def _piece(run: str) -> tuple[int, int, str]:
    # Numbers come before letters. Digits beyond the limit of int() are compared as text.
    return (0, int(run), "") if run.isdecimal() and len(run) <= 4000 else (1, 0, run.casefold())


def _why(folder: Path | None, listing: Listing) -> str:
    """Explain that a folder or pattern gave no image."""
    if folder is not None and holds_results(folder):
        return "it holds results: its rows name the images they were made from"
    return "; ".join(listing.remarks() or [f"their names end in {', '.join(sorted(IMAGE_SUFFIXES))}"])


def _in_folder(folder: Path, choice: Choice, left_out: Counter[str], base: Path | None = None) -> list[Path]:
    """Return the images in a folder and below it; `base` is the folder that patterns of `choice` count from."""
    base = folder if base is None else base
    images: list[Path] = []
    for root, folders, names in _walk(folder):
        kept = []
        for name in folders:
            path = root / name
            if not is_visible_folder(name):
                continue
            if choice.excludes(_relative(path, base)):
                left_out["folder by --exclude"] += 1
            elif choice.is_result(path):
                if count := _count(path):
                    left_out[f"image in a folder of results ({quoted(path)})"] += count
            else:
                kept.append(name)
        # Only these are walked into.
        folders[:] = kept
        images += _chosen(root, names, choice, left_out, base)
    return sorted(_each_once(images), key=natural_key)


def _chosen(folder: Path, names: list[str], choice: Choice, left_out: Counter[str], base: Path) -> Iterator[Path]:
    """Yield the images among files of one folder; count what is left out."""
    for name in _input_names(names, folder, left_out):
        if choice.excludes(_relative(folder / name, base)):
            left_out["image by --exclude"] += 1
        else:
            yield folder / name


def _input_names(names: list[str], folder: Path, left_out: Counter[str]) -> Iterator[str]:
    """Yield the names of images among those of some of a folder's files; count what may be meant as one."""
    for name in names:
        if name.startswith("."):
            continue
        suffix = Path(name).suffix.lower()
        if is_image_name(name):
            if is_saved_prediction(folder / name):
                left_out["picture that Prediction.save wrote"] += 1
            else:
                yield name
        elif suffix in HEIF_SUFFIXES:
            left_out["HEIC photo (to read them: pip install 'anomalens[heif]')"] += 1
        elif suffix in _FOREIGN_KINDS:
            left_out[_FOREIGN_KINDS[suffix]] += 1


def _relative(path: Path, base: Path) -> str:
    return os.path.relpath(path, base).replace(os.sep, "/")


def _count(folder: Path) -> int:
    return sum(is_image_name(name) for _, _, names in _walk(folder) for name in names)


def _walk(folder: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Yield each folder in and below `folder` with the names of its folders, in natural order, and files, once.

    Links are followed. What is taken out of the list of folders is not walked into.
    """
    visited: set[tuple[int, int]] = set()
    for root, folders, names in os.walk(folder, followlinks=True, onerror=_refuse):
        status = os.stat(root)
        # A link back up, or to a folder already listed.
        if (status.st_dev, status.st_ino) in visited:
            folders.clear()
            continue
        visited.add((status.st_dev, status.st_ino))
        # Sorted, so that of two ways to one folder always the same one counts.
        folders.sort(key=natural_key)
        yield Path(root), folders, names


def _refuse(error: OSError) -> NoReturn:
    raise InputError(f"{quoted(error.filename)}: this folder cannot be read ({error.strerror})") from error


def _each_once(paths: Iterable[Path]) -> list[Path]:
    """Return paths without further ways to the same file: the file itself stays rather than a link to it."""
    ways: dict[str, list[Path]] = {}
    real_folder = functools.lru_cache(maxsize=1024)(os.path.realpath)
    for path in paths:
        real = os.path.realpath(path) if path.is_symlink() else os.path.join(real_folder(path.parent), path.name)
        ways.setdefault(real, []).append(path)
    return [
        several[0]
        if len(several) == 1
        else min(several, key=lambda path: (os.path.abspath(path) != real, len(path.parts), natural_key(path)))
        for real, several in ways.items()
    ]


def _matching(pattern: Path, choice: Choice, left_out: Counter[str]) -> list[Path]:
    """Return the images that a pattern matches, and those in folders that it matches."""
    start = Path(pattern.anchor)
    base = _without_magic(pattern)
    images: list[Path] = []
    # Of matched files, by their folder.
    names: dict[Path, list[str]] = {}
    for path in _expand(start, pattern.parts[1 if pattern.anchor else 0 :]):
        is_folder = path.is_dir()
        folders = [folder for folder in (path if is_folder else path.parent, *path.parents) if base in folder.parents]
        if result := next(filter(choice.is_result, folders), None):
            if count := _count(path) if is_folder else int(is_image_name(path.name)):
                left_out[f"image in a folder of results ({quoted(result)})"] += count
        elif is_folder:
            # A file in it may be matched too (`**`): once is enough.
            images += _in_folder(path, choice, left_out, base)
        else:
            names.setdefault(path.parent, []).append(path.name)
    for folder, members in names.items():
        images += _chosen(folder, members, choice, left_out, base)
    return sorted(_each_once(images), key=natural_key)


def _without_magic(pattern: Path) -> Path:
    """Return the folder in which a pattern begins to be one."""
    base = Path(pattern.anchor)
    for part in pattern.parts[1 if pattern.anchor else 0 :]:
        if not (base / part).is_dir():
            break
        base = base / part
    return base


def _expand(folder: Path, parts: Sequence[str]) -> Iterator[Path]:
    """Yield what the `parts` of a pattern match in `folder`; a part that exists is no pattern."""
    if not parts:
        yield folder
        return
    part, rest = parts[0], parts[1:]
    if part == "**":
        for root, folders, names in _walk(folder):
            folders[:] = [name for name in folders if not name.startswith(".")]
            yield from (root / name for name in names if not name.startswith(".")) if not rest else _expand(root, rest)
    elif os.path.lexists(folder / part):
        yield from _expand(folder / part, rest)
    elif glob.has_magic(part) and folder.is_dir():
        for name in sorted(_names_in(folder), key=natural_key):
            if name.startswith(".") > part.startswith("."):
                continue
            if fnmatch.fnmatch(name, part) and (not rest or (folder / name).is_dir()):
                yield from _expand(folder / name, rest)


def _names_in(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError as error:
        _refuse(error)
