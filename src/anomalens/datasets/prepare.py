"""Bring a benchmark's download into a layout anomalens reads (and the papers' code too, where it is meta.json).

    archives as published ─▶ unpacked beside the target ─▶ its own folder, wherever in there ─▶ the rule of the set
    a folder that somebody unpacked ──────────────────────────────────────────────────────────▶ the rule of the set

Only KolektorSDD is rewritten, because its images must be cut. For all others a `meta.json` (or, for ELPV, a
manifest) is laid beside the files as they were downloaded; masks are paired by name, never by sorted order.
"""

import csv
import io
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from anomalens.datasets import elpv
from anomalens.datasets.archives import Progress, unpacked
from anomalens.datasets.catalog import Benchmark, find, key_of
from anomalens.datasets.layouts import read_mask
from anomalens.datasets.layouts.folders import is_normal_name
from anomalens.datasets.layouts.pairing import folders_in, images_in, in_natural_order, masks_in, pair
from anomalens.errors import ConfigError, InputError
from anomalens.files import atomic_write, make_folder, write_json
from anomalens.images.decoding import decode
from anomalens.images.encoding import encode_image
from anomalens.locks import locked

# Share of KolektorSDD's normal parts that are test data, and the seed of that draw: as AdaCLIP prepared them.
KSDD_TEST_SHARE = 0.25
KSDD_SEED = 42

# Folders of images and of their masks, as the sources of the medical pixel-level sets name them.
_IMAGES_AND_MASKS = (
    ("images", "masks"),
    ("test-image", "test-mask"),
    ("ISBI2016_ISIC_Part1_Test_Data", "ISBI2016_ISIC_Part1_Test_GroundTruth"),
)

_DEEPEST = 6  # folders within each other that an archive may put around a set

Row = dict[str, Any]
"""One image in meta.json."""
Meta = dict[str, dict[str, list[Row]]]
"""Content of meta.json: rows by split and class."""


def prepare(name: str, source: str | Path, target: str | Path | None = None, *, force: bool = False) -> str:
    """Prepare the benchmark `name` unpacked in `source`; return the "LAYOUT:PATH" to evaluate.

    `target` (ksdd and elpv only, required there) is where new files go; the other sets get their `meta.json`
    in `source`. An existing `meta.json` is kept unless `force`. Every file is written whole or not at all, so a
    stopped run can simply be repeated.

    Raises ConfigError for an unknown set and a `target` that is missing or not wanted, InputError for an incomplete
    source.
    """
    benchmark = find(name)
    if not benchmark.prepare:
        return f"{benchmark.layout}:{source}"
    writes_elsewhere = benchmark.prepare in ("ksdd", "elpv")
    if writes_elsewhere != (target is not None):
        rule = "needs a target folder" if writes_elsewhere else "is prepared where it lies; leave the target out"
        raise ConfigError(f"{benchmark.title} {rule}")
    root = Path(source)
    if benchmark.prepare != "elpv" and not root.is_dir():
        raise InputError(f"{root}: no such folder; get {benchmark.title} from {benchmark.source} and unpack it there")
    if target is not None:
        Path(target).mkdir(parents=True, exist_ok=True)
        if benchmark.prepare == "elpv":
            return f"manifest:{elpv.write_manifest(Path(target))}"
        return f"mvtec:{_ksdd(benchmark, root, Path(target))}"
    path = root / "meta.json"
    if force or not path.is_file():
        meta = _RULES[benchmark.prepare](benchmark, root)
        if not any(meta["test"].values()):
            raise InputError(f"{root}: no image found; {benchmark.title} unpacks as {benchmark.unpacks}")
        write_json(path, meta)
    return f"meta:{root}"


def prepare_archives(
    name: str, archives: Sequence[str | Path], target: str | Path, progress: Progress | None = None
) -> str:
    """Unpack the archives of the benchmark `name` as they are published, prepare it in `target`, which must not exist
    or be empty, and return the "LAYOUT:PATH" to evaluate.

    The set may lie anywhere in the archives; what they hold besides is not kept. `target` is there whole or not at all.

    progress: called with the bytes of the archives that were unpacked, and the bytes there are.

    Raises ConfigError for an unknown set, one that has no archive, and a target in use; InputError for an archive that
    cannot be unpacked (`archives.py`) or does not hold the set.
    """
    benchmark, files, place = find(name), [Path(archive) for archive in archives], Path(target)
    if benchmark.prepare == "elpv":
        raise ConfigError(f"{benchmark.title} comes as a Python package, not as an archive: {benchmark.source}")
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise ConfigError(f"{place} is in use; choose a new folder")
    make_folder(place.parent)
    if place.is_dir():
        place.rmdir()
    with locked(place, "data prepare"), unpacked(files, place, progress) as folder:
        root = find_root(benchmark, folder)
        if benchmark.prepare == "ksdd":
            prepared = folder / "prepared"
            prepare(name, root, prepared)
            root = prepared
        else:
            prepare(name, root)
        root.rename(place)
    return f"{benchmark.layout}:{place}"


def find_root(benchmark: Benchmark, folder: Path) -> Path:
    """Return the folder that `prepare` takes, `folder` itself or one below it.

    It is the one that is called as the benchmark is, else the only one there is. What lies within one is not looked at.

    Raises InputError where there is none, and where there are several and none is called so.
    """
    fits = _IS_ROOT[benchmark.prepare or benchmark.layout]
    level, fitting = [folder], list[Path]()
    for _ in range(_DEEPEST):
        fitting += [place for place in level if fits(benchmark, place)]
        level = [below for place in level if place not in fitting for below in folders_in(place)]
    named = [place for place in fitting if key_of(place.name) == benchmark.key]
    if not named and len(fitting) != 1:
        names = [place.name for place in fitting] or _lonely_classes(benchmark, folder)
        several = f"; it holds {', '.join(names)}" if names else ""
        raise InputError(f"{benchmark.title} is not in the archive{several}; it unpacks as {benchmark.unpacks}")
    return (named or fitting)[0]


def cut_in_thirds(length: int) -> tuple[tuple[int, int], ...]:
    """Return the three [start, stop) stretches of an image of `length` rows; the last takes what is left over."""
    return (0, length // 3), (length // 3, length * 2 // 3), (length * 2 // 3, length)


def held_out(count: int, share: float, seed: int) -> set[int]:
    """Return the indices of the test part among `count` items: the first ceil(share * count) of a seeded permutation.

    This is what scikit-learn's train_test_split(test_size=share, random_state=seed) picks; numpy's RandomState is
    frozen, so it stays so.
    """
    order = np.random.RandomState(seed).permutation(count)
    return set(order[: math.ceil(share * count)].tolist())


def _ksdd(benchmark: Benchmark, root: Path, target: Path) -> Path:
    """Write every image and label cut in thirds along its length; return `target`.

    Parts are counted in natural order, so that the split is the same everywhere.
    """
    class_folder = target / benchmark.classes[0]
    normal: list[tuple[str, Image.Image]] = []
    defects = 0
    for name, part, label in _ksdd_parts(root):
        if label.any():
            defects += 1
            _save(class_folder / "test" / "defect" / f"{name}.png", part)
            mask = Image.fromarray(label.astype(np.uint8) * 255)
            _save(class_folder / "ground_truth" / "defect" / f"{name}_mask.png", mask)
        else:
            normal.append((name, part))
    if not defects or not normal:
        raise InputError(f"{root}: found {len(normal)} normal and {defects} defective parts; expected kosNN/PartM.jpg")
    test = held_out(len(normal), KSDD_TEST_SHARE, KSDD_SEED)
    for index, (name, part) in enumerate(normal):
        _save(class_folder / ("test" if index in test else "train") / "good" / f"{name}.png", part)
    return target


def _ksdd_parts(root: Path) -> Iterator[tuple[str, Image.Image, NDArray[np.bool_]]]:
    """Yield (name, image, label [H, W]) of each third of each image."""
    for folder in folders_in(root):
        images = [path for path in images_in(folder) if not path.stem.endswith("_label")]
        labels = pair(images, [path for path in images_in(folder) if path.stem.endswith("_label")])
        for path in images:
            if path not in labels.masks:
                raise InputError(f"{path}: its label {path.stem}_label.bmp is missing; unpack the archive again")
            image = Image.fromarray(decode(path).rgb)
            label = read_mask(labels.masks[path])
            if label.shape != (image.height, image.width):
                raise InputError(f"{labels.masks[path]}: its size differs from {path.name}; unpack the archive again")
            for number, (start, stop) in enumerate(cut_in_thirds(image.height)):
                part = image.crop((0, start, image.width, stop))
                yield f"{folder.name}_{path.stem}_{number}", part, label[start:stop]


def _dagm(benchmark: Benchmark, root: Path) -> Meta:
    """Read ClassN/{Train,Test}: an image with a file in Label/ is anomalous, and that file is its mask."""
    meta: Meta = {"train": {}, "test": {}}
    for split, classes in meta.items():
        for name in benchmark.classes:
            folder = root / name / split.capitalize()
            images = images_in(folder)
            masks = pair(images, masks_in(folder / "Label")).masks
            classes[name] = [
                _row(root, name, image, masks.get(image), "defect" if image in masks else "good") for image in images
            ]
            if not images:
                raise InputError(f"{folder}: no image found; {benchmark.title} unpacks as {benchmark.unpacks}")
    return meta


def _images_masks(benchmark: Benchmark, root: Path) -> Meta:
    """Read a folder of images, all anomalous, with masks of the same names in a second folder."""
    name = benchmark.classes[0]
    for images, masks in _IMAGES_AND_MASKS:
        if (root / images).is_dir() and (root / masks).is_dir():
            files = images_in(root / images)
            mask_of = pair(files, masks_in(root / masks)).masks
            return _test_only(name, [_row(root, name, path, mask_of.get(path), "defect") for path in files])
    expected = " or ".join(f"{images}/ + {masks}/" for images, masks in _IMAGES_AND_MASKS)
    raise InputError(f"{root}: expected {expected}; name the folder that holds both")


def _no_yes(benchmark: Benchmark, root: Path) -> Meta:
    return _by_folder(benchmark, root, [folder for folder in folders_in(root) if folder.name in ("no", "yes")])


def _normal_rest(benchmark: Benchmark, root: Path) -> Meta:
    return _by_folder(benchmark, root, folders_in(root))


def _by_folder(benchmark: Benchmark, root: Path, folders: Iterable[Path]) -> Meta:
    """Read folders without masks: those named as normal hold normal images, all others anomalous ones."""
    name = benchmark.classes[0]
    rows = []
    kinds = set()
    for folder in folders:
        normal = is_normal_name(folder.name)
        kinds.add(normal)
        # The newer release of COVID-19 keeps images and (lung) masks in subfolders.
        images = images_in(folder / "images") or images_in(folder)
        rows += [_row(root, name, image, None, "good" if normal else folder.name) for image in images]
    if kinds != {True, False}:
        raise InputError(f"{root}: expected {benchmark.unpacks}; name the folder that holds these folders")
    return _test_only(name, rows)


def _headct(benchmark: Benchmark, root: Path) -> Meta:
    """Read `labels.csv`, which gives id and label; image NNN.png lies below in head_ct/."""
    name = benchmark.classes[0]
    table = root / "labels.csv"
    if not table.is_file():
        raise InputError(f"{table}: not found; {benchmark.title} unpacks as {benchmark.unpacks}")
    images = {path.stem: path for path in in_natural_order(root.rglob("*.png"))}
    rows = []
    lines = list(csv.reader(io.StringIO(table.read_text(encoding="utf-8-sig"))))
    for number, line in enumerate(lines[1:], start=2):
        try:
            stem, label = f"{int(line[0]):03d}", bool(int(line[1]))
        except (ValueError, IndexError) as error:
            raise InputError(f"{table}, line {number}: expected 'id, 0 or 1', found {line}") from error
        if stem not in images:
            raise InputError(f"{table}, line {number}: image {stem}.png is missing; unpack the archive again")
        rows.append(_row(root, name, images[stem], None, "hemorrhage" if label else "good"))
    return _test_only(name, rows)


def _has_classes(benchmark: Benchmark, folder: Path) -> bool:
    # Half of them will do: what is missing is told by the comparison with the catalogue.
    present = [name for name in benchmark.classes if (folder / name / "test").is_dir()]
    return 2 * len(present) >= len(benchmark.classes)


def _lonely_classes(benchmark: Benchmark, folder: Path) -> list[str]:
    """Return the classes that lie anywhere in a folder, where they are too few to be the set."""
    tests = [path.parent.name for path in folder.rglob("test") if path.is_dir()]
    return [name for name in benchmark.classes if name in tests]


def _has_label_pictures(benchmark: Benchmark, folder: Path) -> bool:
    return any(path.stem.endswith("_label") for part in folders_in(folder) for path in images_in(part))


def _has_images_and_masks(benchmark: Benchmark, folder: Path) -> bool:
    return any((folder / images).is_dir() and (folder / masks).is_dir() for images, masks in _IMAGES_AND_MASKS)


# Whether a folder is what the rule, or the layout of a set without one, expects.
_IS_ROOT: dict[str, Callable[[Benchmark, Path], bool]] = {
    "mvtec": _has_classes,
    "visa": lambda benchmark, folder: (folder / "split_csv" / "1cls.csv").is_file(),
    "ksdd": _has_label_pictures,
    "dagm": lambda benchmark, folder: (folder / benchmark.classes[0] / "Train").is_dir(),
    "images_masks": _has_images_and_masks,
    "no_yes": lambda benchmark, folder: (folder / "no").is_dir() and (folder / "yes").is_dir(),
    "normal_rest": lambda benchmark, folder: (folder / "Normal").is_dir() and len(folders_in(folder)) > 1,
    "headct": lambda benchmark, folder: (folder / "labels.csv").is_file(),
}

_RULES: dict[str, Callable[[Benchmark, Path], Meta]] = {
    "dagm": _dagm,
    "images_masks": _images_masks,
    "no_yes": _no_yes,
    "normal_rest": _normal_rest,
    "headct": _headct,
}


def _test_only(name: str, rows: list[Row]) -> Meta:
    return {"train": {}, "test": {name: rows}}


def _row(root: Path, class_name: str, image: Path, mask: Path | None, kind: str) -> Row:
    return {
        "img_path": image.relative_to(root).as_posix(),
        "mask_path": "" if mask is None else mask.relative_to(root).as_posix(),
        "cls_name": class_name,
        "specie_name": kind,
        "anomaly": int(kind != "good"),
    }


def _save(path: Path, image: Image.Image) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, encode_image(image))
