"""Open "LAYOUT:PATH" as a Dataset: recognise the layout, read it, check it, group it by class."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from anomalens.datasets.layouts.dataset import Dataset, Sample, fault_lines
from anomalens.datasets.layouts.folders import (
    RGB,
    Reading,
    folder_classes,
    mvtec3d_classes,
    mvtec_classes,
    read_folders,
    read_mvtec,
    read_mvtec3d,
    remarks_on_names,
    unlabelled,
    unread_folders,
)
from anomalens.datasets.layouts.masks import USUAL_SIZE, check_headers, examine
from anomalens.datasets.layouts.pairing import folders_in, images_in
from anomalens.datasets.layouts.tables import MANIFEST_SUFFIXES, read_manifest, read_meta, read_visa
from anomalens.errors import ConfigError, InputError
from anomalens.images.image_files import MAX_PIXELS
from anomalens.images.sources import Choice, Listing, find_images
from anomalens.names import at_home, name_text

LAYOUTS = ("mvtec", "mvtec3d", "visa", "meta", "folders", "flat", "manifest")

_HELP = (
    "expected one of: mvtec (class folders with test/<kind>/), mvtec3d (with test/<kind>/rgb/), visa "
    "(split_csv/1cls.csv), meta (meta.json), folders (normal/ and anomalous/), flat (images), manifest (.csv, .jsonl, "
    ".parquet with a column 'image')"
)


def parse_spec(spec: str | Path) -> tuple[str | None, Path]:
    """Split "LAYOUT:PATH" into (layout or None, path). One letter before the colon is a Windows drive."""
    match = re.fullmatch(r"([A-Za-z][\w+-]+):(.*)", str(spec), re.DOTALL)
    if isinstance(spec, Path) or match is None:
        return None, at_home(spec)
    layout, path = match.group(1).lower(), match.group(2)
    if layout in LAYOUTS:
        if not path:
            raise ConfigError(f"'{spec}' names a layout but no path; write {layout}:PATH")
        return layout, at_home(path)
    if Path(str(spec)).exists():  # a file that happens to have a colon in its name
        return None, Path(str(spec))
    raise ConfigError(f"'{layout}' is not a layout; {_HELP}")


def detect(path: Path, normal_names: Sequence[str] = ()) -> tuple[str, str]:
    """Return (layout, the reason in words). A written table is preferred to what folder names suggest.

    Raises InputError when nothing fits.
    """
    if path.is_file():
        if path.suffix.lower() == ".json":
            return "meta", "the path is a .json file"
        if path.suffix.lower() in MANIFEST_SUFFIXES:
            visa = path.parent.name == "split_csv"
            return ("visa", "the path is a table in split_csv/") if visa else ("manifest", "the path is a table")
        raise InputError(f"{path}: this file is no data set; {_HELP}")
    if not path.is_dir():
        raise InputError(f"{path}: no such file or folder; {_HELP}")
    if (path / "meta.json").is_file():
        return "meta", "the folder holds meta.json"
    if (path / "split_csv" / "1cls.csv").is_file():
        return "visa", "the folder holds split_csv/1cls.csv"
    tables = [path / f"manifest{suffix}" for suffix in MANIFEST_SUFFIXES if (path / f"manifest{suffix}").is_file()]
    if tables:
        return "manifest", f"the folder holds {tables[0].name}"
    if classes := mvtec3d_classes(path):
        return "mvtec3d", f"'{classes[0].name}' holds test/ with folders that hold {RGB}/"
    if classes := mvtec_classes(path):
        return "mvtec", f"'{classes[0].name}' holds test/"
    if classes := folder_classes(path, normal_names):
        return "folders", f"'{classes[0].name}' holds a folder of normal or of anomalous images"
    if images_in(path):
        return "flat", "the folder holds images and no folder that says normal or anomalous"
    present = ", ".join(folder.name for folder in folders_in(path)[:8]) or "no subfolder and no image"
    raise InputError(f"{path}: no known layout; {_HELP}; found: {present}")


def open_dataset(
    spec: str | Path,
    *,
    strict: bool = False,
    deep: bool = False,
    exclude: Sequence[str] = (),
    normal_names: Sequence[str] = (),
    max_pixels: int = MAX_PIXELS,
) -> Dataset:
    """Read a data set given as "LAYOUT:PATH" or as a path whose layout is recognised.

    Every image and mask is opened (header only) and every fault reported in `Dataset.faults` before anything
    runs; `deep` also decodes all masks and compares them with the labels; `strict` turns faults into an error.

    Args:
        exclude: patterns of images to leave out, compared with their ids as `find_images` does it.
        normal_names: further names of folders, or labels in a manifest, that say normal.
        max_pixels: largest image and mask accepted, in pixels.

    Raises ConfigError for an unknown layout name; InputError when the path holds no such layout, no usable
    image, or (strict) any fault.
    """
    layout, path = parse_spec(spec)
    notes = []
    if layout is None:
        layout, reason = detect(path, normal_names)
        notes.append(f"layout '{layout}' recognised: {reason}; name it as {layout}:PATH to be sure")
    root = path.parent if path.is_file() else path
    if layout == "visa" and root.name == "split_csv":
        root = root.parent
    samples, faults = _read(layout, path, normal_names, notes)
    choice = Choice(tuple(exclude))
    chosen = [sample for sample in samples if not choice.excludes(sample.id)]
    listing = Listing(left_out=Counter({"image by --exclude": len(samples) - len(chosen)}), idle=choice.idle)
    notes += listing.remarks()
    if layout == "mvtec" and mvtec_classes(path) == [path]:
        notes.append(f"the path is one class folder; its class is called '{path.resolve().name}'")
    samples, header_faults = check_headers(chosen, max_pixels=max_pixels)
    named_table = layout == "manifest" and path.is_file() and path.stem != "manifest"
    dataset = Dataset(
        name=name_text(path.stem if named_table else root.resolve().name),
        layout=layout,
        root=root,
        classes=_group(samples),
        faults=(*faults, *header_faults),
        notes=tuple(notes),
    )
    if deep:
        deep_faults, tiny = examine(dataset, max_pixels=max_pixels)
        dataset = replace(
            dataset, faults=(*dataset.faults, *deep_faults), notes=(*dataset.notes, *_remark_on_tiny(tiny))
        )
    if not dataset.classes or (strict and dataset.faults):
        problem = "has faults" if dataset.classes else "no usable image found"
        lines = fault_lines(dataset.faults) or [f"found nothing readable as '{layout}'; {_HELP}"]
        raise InputError("\n".join([f"{path}: {problem}", *lines]))
    return dataset


def _read(layout: str, path: Path, normal_names: Sequence[str], notes: list[str]) -> Reading:
    """Return what the reader of a layout reads; remarks for the user are added to `notes`."""
    if layout == "flat":
        (root,) = _required([path] if path.is_dir() else [], path, "a folder of images")
        try:
            listing = find_images([root])
        except InputError as error:
            raise InputError(f"no usable image found: {error}") from error
        notes += listing.remarks()
        return unlabelled(root, listing.images), []
    if layout == "folders":
        classes = _required(folder_classes(path, normal_names), path, "folders normal/ and anomalous/")
        reading = read_folders(classes, normal_names)
        if unread := [folder for name in classes for folder in unread_folders(name, normal_names)]:
            named = ", ".join(f"'{folder.name}'" for folder in unread[:8])
            notes.append(f"not read, neither normal nor anomalous by name: {named}; see --normal-name")
    elif layout == "mvtec3d":
        reading = read_mvtec3d(_required(mvtec3d_classes(path), path, f"test/<kind>/{RGB}/"), normal_names)
    elif layout == "mvtec":
        reading = read_mvtec(_required(mvtec_classes(path), path, "class folders that hold test/"), normal_names)
    elif layout == "visa":
        return read_visa(_table(path, ["split_csv/1cls.csv"]))
    elif layout == "meta":
        return read_meta(_table(path, ["meta.json"]))
    else:
        return read_manifest(_table(path, [f"manifest{suffix}" for suffix in MANIFEST_SUFFIXES]), normal_names)
    notes += [*remarks_on_names(reading[0]), *_remarks_on_files(path)]
    return reading


def _remarks_on_files(root: Path) -> list[str]:
    """Return lines of text on what is no image and may be meant as one, and on results, anywhere below a folder."""
    try:
        return find_images([root]).remarks()
    except InputError:
        # Readers say what is wrong with a folder.
        return []


def _remark_on_tiny(samples: Sequence[Sample]) -> list[str]:
    if not samples:
        return []
    names = ", ".join(f"'{sample.id}'" for sample in samples[:3])
    return [
        f"{len(samples)} {'mask marks' if len(samples) == 1 else 'masks mark'} less than one pixel at {USUAL_SIZE} x "
        f"{USUAL_SIZE}; an evaluation keeps the area of such masks and counts them ({names})"
    ]


def _required(folders: list[Path], path: Path, expected: str) -> list[Path]:
    """Return `folders`, which were looked for in `path`. Raises InputError where there are none."""
    if not folders:
        state = "not in it" if path.is_dir() else "no such folder"
        raise InputError(f"{path}: expected {expected}; {state}")
    return folders


def _table(path: Path, names: list[str]) -> Path:
    """Return `path` if it is a file, else the first file of `names` in it. Raises InputError where there is none."""
    if path.is_file():
        return path
    for name in names:
        if (path / name).is_file():
            return path / name
    state = "not in this folder" if path.is_dir() else "no such file or folder"
    raise InputError(f"{path}: expected {' or '.join(names)}; {state}")


def _group(samples: list[Sample]) -> dict[str, tuple[Sample, ...]]:
    """Return the samples by class, without classes that have no test image."""
    groups: dict[str, list[Sample]] = {}
    for sample in samples:
        groups.setdefault(sample.class_name, []).append(sample)
    return {
        name: tuple(members) for name, members in groups.items() if any(sample.split == "test" for sample in members)
    }
