"""From what a user names (folders, patterns, manifests, object stores) to a table of input keys, each exactly once."""

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from anomalens.errors import ConfigError, InputError
from anomalens.extras import optional
from anomalens.images.sources import IMAGE_SUFFIXES, list_images, natural_key
from anomalens.runs.ray_store import is_address, locate

_MANIFEST = ".parquet"


@dataclass(frozen=True)
class Inputs:
    """What is to be done. The key of an input is its path or address as text; results are joined by it."""

    table: Any  # pyarrow.Table: path large_string, every one once, in the order given; object large_string or null
    duplicates: int  # inputs left out because their key came before

    def __len__(self) -> int:
        return int(self.table.num_rows)


def list_inputs(inputs: Sequence[str | os.PathLike[str]]) -> Inputs:
    """Every image that `inputs` name.

    Files, folders and patterns are read as by `list_images`. A name that ends in `.parquet` (a file,
    a folder of such files, a pattern, an address) is a manifest: the column `path` holds paths or addresses, the
    optional column `object` what that image shows; relative paths count from the working folder. An address
    (`s3://bucket/prefix`) is an object, everything below a prefix, or a pattern.

    Raises:
        InputError: nothing is there, or it holds no image.
        ConfigError: a manifest without the column `path`, with empty paths, or with two objects for one path; an
            address that cannot be opened.
    """
    pa = optional("pyarrow", "ray")
    tables = [table for given in inputs for table in _tables(os.fspath(given))]
    if not tables:
        raise InputError("no inputs were given: name images, folders, patterns, manifests or addresses")
    table = pa.concat_tables(tables)
    unique = _unique(table)
    return Inputs(unique, table.num_rows - unique.num_rows)


def _tables(given: str) -> Iterator[Any]:
    if given.lower().rstrip("/").endswith(_MANIFEST):
        for name in _manifests(given):
            yield _manifest(name)
    elif is_address(given):
        yield _table(_remote(given))
    else:
        yield _table([str(path) for path in list_images([given])])


def _table(paths: list[str]) -> Any:
    import pyarrow as pa

    # A name that is no UTF-8 cannot be a key; escaped, it fails on its own row and the run goes on.
    text = [path.encode("utf-8", "backslashreplace").decode() for path in paths]
    return pa.table({"path": pa.array(text, pa.large_string()), "object": pa.nulls(len(text), pa.large_string())})


def _manifests(given: str) -> list[str]:
    if is_address(given):
        system, path, prefix = locate(given)
        return [prefix + one for one in sorted(system.glob(path), key=natural_key)] if glob.has_magic(path) else [given]
    if os.path.lexists(given) or not glob.has_magic(given):
        return [given]
    found = sorted(glob.glob(given, recursive=True), key=natural_key)
    if not found:
        raise InputError(f"{given!r}: no manifest matches this pattern")
    return found


def _manifest(name: str) -> Any:
    pa, pq, pc = (optional(module, "ray") for module in ("pyarrow", "pyarrow.parquet", "pyarrow.compute"))
    system, path, _ = locate(name) if is_address(name) else (None, name, "")
    try:
        table = pq.read_table(path, filesystem=system)
        if "path" not in table.column_names:
            raise ConfigError(f"{name!r}: a manifest needs a column 'path'; this one has {table.column_names}")
        text = [table.column("path").cast(pa.large_string())]
        given = "object" in table.column_names
        text.append(table.column("object").cast(pa.large_string()) if given else pa.nulls(len(table), text[0].type))
    except FileNotFoundError as error:
        raise InputError(f"{name!r}: no such manifest") from error
    except (OSError, pa.ArrowException) as error:
        raise ConfigError(f"{name!r}: cannot be read as a Parquet manifest ({' '.join(str(error).split())})") from error
    filled = pc.sum(pc.greater(pc.binary_length(text[0]), 0)).as_py() or 0
    empty = table.num_rows - filled
    if empty or not table.num_rows:
        raise ConfigError(f"{name!r}: {f'{empty} rows have no path' if empty else 'the manifest has no rows'}")
    return pa.table({"path": text[0], "object": text[1]})


def _remote(address: str) -> list[str]:
    system, path, prefix = locate(address)
    try:
        if glob.has_magic(path) and not system.exists(path):
            found = [one for one in system.glob(path) if _is_image(one)]
        elif system.isfile(path):
            return [address]
        else:
            found = [one for one in system.find(path) if _is_image(one) and not _hidden(one, path)]
    except FileNotFoundError:
        found = []
    except OSError as error:
        raise ConfigError(f"{address!r}: cannot be listed ({' '.join(str(error).split())})") from error
    if not found:
        raise InputError(f"{address!r}: no image is there or below it")
    return [prefix + one for one in sorted(found, key=natural_key)]


def _is_image(path: str) -> bool:
    name = PurePosixPath(path).name
    return not name.startswith(".") and Path(name).suffix.lower() in IMAGE_SUFFIXES


def _hidden(path: str, below: str) -> bool:
    return any(part.startswith(".") for part in PurePosixPath(path[len(below.rstrip("/")) :]).parts)


def _unique(table: Any) -> Any:
    """The first row of every path. The grouping is done by Arrow: a hundred million keys are no Python objects."""
    import pyarrow as pa
    import pyarrow.compute as pc

    numbered = table.append_column("row", pa.array(np.arange(table.num_rows)))
    kinds = pc.CountOptions(mode="all")
    groups = numbered.group_by("path").aggregate([("row", "min"), ("object", "count_distinct", kinds)])
    clashes = groups.filter(pc.greater(groups.column("object_count_distinct"), 1))
    if clashes.num_rows:
        path = clashes.column("path")[0].as_py()
        said = table.filter(pc.equal(table.column("path"), path)).column("object").unique().to_pylist()
        raise ConfigError(f"{path!r} is given with several objects {said}: every path has one row, so name one object")
    rows = groups.column("row_min").combine_chunks()
    return table.take(rows.take(pc.array_sort_indices(rows)))
