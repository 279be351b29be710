"""Turn what a user names (folders, patterns, manifests, addresses) into a table of input keys, each exactly once."""

import glob
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from anomalens.errors import ConfigError, InputError, one_line
from anomalens.extras import optional
from anomalens.images.result_folders import results_among
from anomalens.images.sources import Choice, Listing, find_images, is_image_name, is_visible_folder, natural_key
from anomalens.names import name_text
from anomalens.runs.ray_addresses import is_address, locate

_MANIFEST = ".parquet"


@dataclass(frozen=True)
class RunInputs:
    """Hold the inputs of a run. An input's key is its address, or its path in text form; results are joined by it."""

    # pyarrow.Table in the order in which the inputs were named: column "path" (large_string, each path once) and
    # column "object" (large_string or null).
    table: Any
    # Inputs left out because their key came before.
    duplicates: int

    def __len__(self) -> int:
        return int(self.table.num_rows)


def list_inputs(
    inputs: Sequence[str | os.PathLike[str]],
    *,
    exclude: Sequence[str] = (),
    out: str | os.PathLike[str] | None = None,
) -> RunInputs:
    """List every image that `inputs` name.

    Files, folders and patterns are read as by `find_images`, with `exclude` and `out`. A name that ends in `.parquet`
    (a file, a folder of such files, a pattern, an address) is a manifest: the column `path` holds paths or addresses,
    the optional column `object` what that image shows; relative paths count from the working folder. An address
    (`s3://bucket/prefix`) is an object, everything below a prefix, or a pattern; hidden objects and results are left
    out there too.

    Raises:
        InputError: nothing is there, or it holds no image.
        ConfigError: a manifest without the column `path`, with empty paths, or with two objects for one path; an
            address that cannot be opened.
    """
    pa = optional("pyarrow", "ray")
    choice = Choice(tuple(exclude), None if out is None else Path(out))
    tables = [table for name in inputs for table in _tables(os.fspath(name), choice)]
    Listing(idle=choice.idle).log()
    if not tables:
        raise InputError("no inputs were named: name images, folders, patterns, manifests or addresses")
    table = pa.concat_tables(tables)
    unique = _unique(table)
    return RunInputs(unique, table.num_rows - unique.num_rows)


def _tables(name: str, choice: Choice) -> Iterator[Any]:
    if name.lower().rstrip("/").endswith(_MANIFEST):
        for manifest in _manifests(name):
            yield _chosen(_manifest(manifest), choice)
    elif is_address(name):
        yield _table(_images_behind(name, choice))
    else:
        listing = find_images([name], exclude=choice.exclude, out=choice.out)
        # Patterns that fit nothing here may fit other inputs.
        replace(listing, idle=()).log()
        choice.used.update(set(choice.exclude) - set(listing.idle))
        yield _table([str(path) for path in listing.images])


def _chosen(table: Any, choice: Choice) -> Any:
    """Return the rows of a manifest whose images are not left out by name."""
    if not choice.exclude:
        return table
    kept = [not choice.excludes(PurePosixPath(path).name) for path in table.column("path").to_pylist()]
    if left_out := len(kept) - sum(kept):
        Listing(left_out=Counter({"image by --exclude": left_out})).log()
    return table.filter(kept)


def _table(paths: list[str]) -> Any:
    import pyarrow as pa

    text = [name_text(path) for path in paths]
    return pa.table({"path": pa.array(text, pa.large_string()), "object": pa.nulls(len(text), pa.large_string())})


def _manifests(name: str) -> list[str]:
    """Return the manifests that a name or pattern stands for, in natural order."""
    prefix = ""
    if is_address(name) and glob.has_magic(name):
        system, path, prefix = locate(name)
        matches = system.glob(path)
    elif is_address(name) or os.path.lexists(name) or not glob.has_magic(name):
        return [name]
    else:
        matches = glob.glob(name, recursive=True)
    if not matches:
        raise InputError(f"{name!r}: no manifest matches this pattern")
    return [prefix + match for match in sorted(matches, key=natural_key)]


def _manifest(name: str) -> Any:
    pa, pq, pc = (optional(module, "ray") for module in ("pyarrow", "pyarrow.parquet", "pyarrow.compute"))
    system, path, _ = locate(name) if is_address(name) else (None, name, "")
    try:
        table = pq.read_table(path, filesystem=system)
        if "path" not in table.column_names:
            raise ConfigError(f"{name!r}: a manifest needs a column 'path'; this one has {table.column_names}")
        paths = table.column("path").cast(pa.large_string())
        if "object" in table.column_names:
            objects = table.column("object").cast(pa.large_string())
        else:
            objects = pa.nulls(len(table), pa.large_string())
    except FileNotFoundError as error:
        raise InputError(f"{name!r}: no such manifest") from error
    except (OSError, pa.ArrowException) as error:
        raise ConfigError(f"{name!r}: cannot be read as a Parquet manifest ({one_line(error)})") from error
    if not table.num_rows:
        raise ConfigError(f"{name!r}: the manifest has no rows")
    empty = table.num_rows - (pc.sum(pc.greater(pc.binary_length(paths), 0)).as_py() or 0)
    if empty:
        raise ConfigError(f"{name!r}: {empty} rows have no path")
    return pa.table({"path": paths, "object": objects})


def _images_behind(address: str, choice: Choice) -> list[str]:
    """Return the addresses of all images that an address stands for, in natural order."""
    system, path, prefix = locate(address)
    left_out: Counter[str] = Counter()
    try:
        if glob.has_magic(path) and not system.exists(path):
            base = re.split(r"[*?[]", path)[0].rpartition("/")[0]
            images = _inputs_among(system.glob(path), base, choice, left_out)
        elif system.isfile(path):
            return [address]
        else:
            images = _inputs_among(system.find(path), path.rstrip("/"), choice, left_out)
    except FileNotFoundError:
        images = []
    except OSError as error:
        raise ConfigError(f"{address!r}: cannot be listed ({one_line(error)})") from error
    listing = Listing(left_out=left_out)
    if not images:
        raise InputError("; ".join([f"{address!r}: no image is there or below it", *listing.remarks()]))
    listing.log()
    return [prefix + name for name in sorted(images, key=natural_key)]


def _inputs_among(names: Sequence[str], base: str, choice: Choice, left_out: Counter[str]) -> list[str]:
    """Return the images among the paths of files below `base`; count what is left out."""
    relative = {name: name[name.find(base) + len(base) :].strip("/") for name in names}
    results = results_among(relative.values())
    images = []
    for name, below in relative.items():
        *folders, last = below.split("/")
        if not is_image_name(last) or not all(map(is_visible_folder, folders)):
            continue
        if below.startswith(results):
            left_out["image in a folder of results"] += 1
        elif choice.excludes(below):
            left_out["image by --exclude"] += 1
        else:
            images.append(name)
    return images


def _unique(table: Any) -> Any:
    """Return the first row of every path. Arrow does the grouping: a hundred million keys are no Python objects."""
    import pyarrow as pa
    import pyarrow.compute as pc

    numbered = table.append_column("row", pa.array(np.arange(table.num_rows)))
    kinds = pc.CountOptions(mode="all")
    groups = numbered.group_by("path").aggregate([("row", "min"), ("object", "count_distinct", kinds)])
    clashes = groups.filter(pc.greater(groups.column("object_count_distinct"), 1))
    if clashes.num_rows:
        path = clashes.column("path")[0].as_py()
        objects = table.filter(pc.equal(table.column("path"), path)).column("object").unique().to_pylist()
        raise ConfigError(
            f"{path!r} is named with several objects {objects}: every path has one row, so name one object"
        )
    rows = groups.column("row_min").combine_chunks()
    return table.take(rows.take(pc.array_sort_indices(rows)))
