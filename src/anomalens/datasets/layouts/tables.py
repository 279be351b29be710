"""Read the layouts that are written down in a file: visa, meta, manifest."""

import csv
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from anomalens.datasets.layouts.dataset import Fault, Label, Sample, Split
from anomalens.datasets.layouts.folders import Reading, is_normal_name
from anomalens.datasets.layouts.pairing import likeness
from anomalens.errors import InputError, one_line
from anomalens.extras import optional
from anomalens.images.sources import natural_key
from anomalens.names import at_home, name_path, name_text
from anomalens.untrusted import json_value, read_bytes, read_json

_MOST_BYTES = 2**29  # of a table
MANIFEST_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")

_LABELS: dict[str, Label | None] = {
    "": None, "none": None, "null": None, "nan": None, "unknown": None,
    "0.0": 0, "false": 0,
    "1": 1, "1.0": 1, "true": 1, "yes": 1, "anomaly": 1, "anomalous": 1, "abnormal": 1, "bad": 1, "damaged": 1,
    "defect": 1, "defective": 1, "fail": 1, "failed": 1, "faulty": 1, "ko": 1, "ng": 1, "nok": 1, "rejected": 1,
    "unhealthy": 1,
}  # fmt: skip


def read_visa(table: Path) -> Reading:
    """Read `split_csv/1cls.csv` with columns object, split, label, image, mask; paths relative to the folder above."""
    renamed = {"object": "class", "split": "split", "label": "label", "image": "image", "mask": "mask"}
    rows = _read_csv(table)
    if rows and not renamed.keys() <= rows[0].keys():
        raise InputError(f"{table}: expected columns {', '.join(renamed)}, found {', '.join(rows[0])}")
    root = table.parent.parent if table.parent.name == "split_csv" else table.parent
    return _read_rows(({new: row[old] for old, new in renamed.items()} for row in rows), root, table)


def read_meta(path: Path) -> Reading:
    """Read the papers' `meta.json`: {split: {class: [{img_path, mask_path, cls_name, specie_name, anomaly}]}}."""
    try:
        meta = read_json(path, error=InputError, most_bytes=_MOST_BYTES, finite=False)
        rows = [
            {
                "image": item["img_path"],
                "mask": item.get("mask_path"),
                "class": item.get("cls_name", class_name),
                "kind": item.get("specie_name"),
                "label": item["anomaly"],
                "split": split.lower(),  # some generators write "Train" and "Test"
            }
            for split, classes in meta.items()
            for class_name, items in classes.items()
            for item in items
        ]
    except (ValueError, AttributeError, TypeError, KeyError) as error:
        raise InputError(
            f"{path}: expected {{'test': {{class: [{{img_path, mask_path, cls_name, specie_name, anomaly}}]}}}}, "
            f"found something else ({one_line(error)}); regenerate it or name another layout"
        ) from error
    return _read_rows(rows, path.parent, path, ordered=True)


def read_manifest(path: Path, normal_names: Sequence[str] = ()) -> Reading:
    """Read CSV, JSON lines or Parquet with the column `image` and optionally label, mask, class, split, kind.

    Paths are relative to the manifest. A row without a label but with a mask counts as anomalous; labels among
    `normal_names` say normal too.
    Raises InputError for a file that is no such table, MissingExtraError where Parquet's package is not installed.
    """
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        parquet = optional("pyarrow.parquet", "data")
        try:
            rows = parquet.read_table(path).to_pylist()
        except (OSError, ValueError) as error:  # ArrowInvalid is a ValueError
            raise InputError(f"{path}: not a readable Parquet file ({one_line(error)})") from error
    elif suffix in {".csv", ".tsv"}:
        rows = _read_csv(path)
    elif suffix in {".jsonl", ".ndjson"}:
        rows = _read_json_lines(path)
    else:
        raise InputError(f"{path}: expected a manifest ending in {', '.join(MANIFEST_SUFFIXES)}")
    if not rows or not all("image" in row for row in rows):
        columns = ", ".join(rows[0]) if rows else "nothing"
        raise InputError(f"{path}: expected a column 'image' (and label, mask, class, split, kind); found {columns}")
    return _read_rows(rows, path.parent, path, normal_names=normal_names)


def _read_rows(
    rows: Iterable[Mapping[str, Any]],
    root: Path,
    table: Path,
    *,
    ordered: bool = False,
    normal_names: Sequence[str] = (),
) -> Reading:
    """Return the samples of a table in natural order, or as written where `ordered` (meta.json: the papers' order)."""
    samples: list[Sample] = []
    faults: list[Fault] = []
    ids: set[str] = set()
    default_class = root.resolve().name
    for row in rows:
        name = str(row["image"])
        image = _resolve(root, name)
        mask_name = _text(row.get("mask"))
        mask = _resolve(root, mask_name) if mask_name else None
        # An empty or "." path, as some generators write for "no mask".
        if mask == root:
            mask = None
        label_text, split_text = _text(row.get("label")).lower(), _text(row.get("split")).lower() or "test"
        sample_id = name if Path(name).is_absolute() else name_text(Path(os.path.relpath(image, root)).as_posix())
        label = _LABELS.get(label_text)
        if is_normal_name(label_text, normal_names):
            label = 0
        elif label_text not in _LABELS:
            faults.append(Fault("bad_label", table, f"'{row['label']}' for '{name}'"))
            continue
        if split_text not in ("train", "test"):
            faults.append(Fault("bad_split", table, f"'{row['split']}' for '{name}'"))
        elif sample_id in ids:
            faults.append(Fault("duplicate_image", table, f"'{name}' appears again"))
        else:
            ids.add(sample_id)
            if label is None and mask is not None:
                label = 1
            kind = "good" if label == 0 else _text(row.get("kind")) or ("defect" if label == 1 else "")
            split: Split = "train" if split_text == "train" else "test"
            class_name = _text(row.get("class")) or default_class
            samples.append(Sample(image, label, mask, kind, class_name, split, sample_id))
    if not ordered:
        samples.sort(
            key=lambda sample: (natural_key(sample.class_name), sample.split != "train", natural_key(sample.id))
        )
    faults += _swapped_masks(samples) + _missing_masks(samples)
    return samples, faults


def _missing_masks(samples: list[Sample]) -> list[Fault]:
    """Return a fault for each anomalous image without a mask, in classes that otherwise have masks."""
    anomalous = [sample for sample in samples if sample.label == 1]
    with_masks = {sample.class_name for sample in anomalous if sample.mask is not None}
    return [
        Fault("missing_mask", sample.image, "its row names no mask")
        for sample in anomalous
        if sample.mask is None and sample.class_name in with_masks
    ]


def _swapped_masks(samples: list[Sample]) -> list[Fault]:
    """Return a fault for each mask that is named after another image of the same folder than the one it is given to:
    the sign of pairing by sorted order."""
    images = {(sample.image.parent, likeness(sample.image)): sample.image for sample in samples}
    faults = []
    for sample in samples:
        if sample.mask is None or likeness(sample.mask) == likeness(sample.image):
            continue
        other = images.get((sample.image.parent, likeness(sample.mask)))
        if other is not None:
            detail = f"given to '{sample.id}', but its name is that of '{other.name}' (used as written)"
            faults.append(Fault("swapped_mask", sample.mask, detail))
    return faults


def _resolve(root: Path, name: str) -> Path:
    """Return `name` under `root`; absolute names stay.

    Where it names no file, a backslash is part of the text form of a name that is not UTF-8, or Windows' separator.
    """
    path = root / at_home(name)
    if "\\" in name and not path.exists():
        decoded = root / name_path(name)
        path = decoded if decoded.exists() else root / name.replace("\\", "/")
    return path


def _text(value: Any) -> str:
    """Return a table's cell as text; None and NaN (an empty Parquet number) are empty."""
    return "" if value is None or value != value else str(value).strip()


def _read_csv(path: Path) -> list[dict[str, Any]]:
    text = _read_text(path)
    header = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=header.count)
    rows = csv.DictReader(io.StringIO(text), delimiter=delimiter, restval="")
    try:
        return [{key.strip(): value for key, value in row.items() if key} for row in rows]
    except csv.Error as error:
        raise InputError(f"{path}, line {rows.reader.line_num}: not a CSV row ({one_line(error)})") from error


def _read_json_lines(path: Path) -> list[dict[str, Any]]:
    rows = []
    # Not splitlines(): JSON may hold other characters that it takes for the end of a line.
    for number, line in enumerate(_read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json_value(line, finite=False)
        except ValueError as error:
            raise InputError(
                f"{path}, line {number}: not JSON ({one_line(error)}); each line must be one object"
            ) from error
        if not isinstance(row, dict):
            raise InputError(f'{path}, line {number}: expected an object like {{"image": ...}}, found {line[:40]}')
        rows.append(row)
    return rows


def _read_text(path: Path) -> str:
    try:
        text = read_bytes(path, error=InputError, most_bytes=_MOST_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: cannot be read as UTF-8 text ({one_line(error)}); save the table as UTF-8"
        ) from error
    # As a file opened for text is read.
    return text.replace("\r\n", "\n").replace("\r", "\n")
