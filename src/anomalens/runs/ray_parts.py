"""Keep the rows of a run on a Ray cluster: Parquet files of many rows, each input exactly once.

    DIR/rows/part=00012/<digest of the part's keys>.parquet
    DIR/run.json

The inputs, in order, are cut into parts of a fixed size. The name of a part's file follows from its number and its
keys alone, and the file is put in place whole, by a rename. So whichever worker finishes a part, and however often, the
result is the same one file: a part that has its file is done, a part without is done again. Nothing else records
progress.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anomalens.errors import ConfigError
from anomalens.extras import optional
from anomalens.files import atomic_write, digest
from anomalens.runs.ray_inputs import RunInputs
from anomalens.runs.record import PARTS, open_folder, read_record, write_record
from anomalens.runs.store import Row, RunCounts, RunSummary

LARGEST_PART = 1024  # rows; what a dead worker loses at most, and the size of a file
_PARTS_PER_ACTOR = 4  # at least, so that no actor waits long for the last part
_COUNTS = b"anomalens"  # key of the counts in the metadata of a part's file
_DIGITS = 20  # hexadecimal digits kept of a digest


def schema() -> Any:
    """Return the columns (pyarrow.Schema): those of `Prediction.to_dict` and `Failure.to_dict`, null where absent."""
    pa = optional("pyarrow", "ray")
    whole = pa.list_(pa.int32())
    millimetres = [(name, pa.float64()) for name in ("width_mm", "height_mm", "area_mm2")]
    region = pa.struct([("box", whole), ("area", pa.int64()), ("peak", pa.float64()), ("peak_at", whole), *millimetres])
    return pa.schema(
        [
            pa.field("path", pa.string(), nullable=False),
            ("error", pa.string()),
            ("kind", pa.string()),
            ("score", pa.float64()),
            ("label", pa.string()),
            ("confidence", pa.int32()),
            ("reason", pa.string()),
            ("p_value", pa.float64()),
            ("threshold", pa.float64()),
            ("threshold_source", pa.string()),
            ("pixel_threshold", pa.float64()),
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("object", pa.string()),
            ("regions", pa.list_(region)),
            ("method", pa.string()),
            ("backbone", pa.string()),
            ("note", pa.string()),
        ]
    )


def read_counts(path: Path) -> RunCounts | None:
    """Read the counts in the footer of a part's file; None where it is missing or damaged, that is, not done."""
    pa, pq = optional("pyarrow", "ray"), optional("pyarrow.parquet", "ray")
    try:
        footer = pq.read_metadata(path)
        counts = RunCounts(**json.loads(footer.metadata[_COUNTS]))
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError):
        return None
    return counts if counts.rows == footer.num_rows else None


@dataclass(frozen=True)
class RunPart:
    """Describe a slice of the inputs."""

    number: int
    paths: list[str]
    objects: list[str | None]

    @property
    def digest(self) -> str:
        """Return a digest of the part's keys; the same wherever and whenever it is computed."""
        return digest(json.dumps([self.paths, self.objects]))[:_DIGITS]

    def file(self, folder: Path) -> Path:
        """Return where the part's rows go in the folder of a run."""
        return folder / PARTS / f"part={self.number:05d}" / f"{self.digest}.parquet"


@dataclass(frozen=True)
class FinishedPart:
    """Hold the rows of a part as a worker gives them back."""

    number: int
    counts: RunCounts
    # A Parquet file, compressed with Zstandard, whose metadata holds the counts.
    data: bytes

    @classmethod
    def of(cls, number: int, rows: Sequence[Row]) -> "FinishedPart":
        """Encode the rows of part `number`."""
        pa, pq = optional("pyarrow", "ray"), optional("pyarrow.parquet", "ray")
        counts = RunCounts.of(*rows)
        table = pa.Table.from_pylist(list(rows), schema().with_metadata({_COUNTS: json.dumps(vars(counts))}))
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        return cls(number, counts, bytes(sink.getvalue()))


class ParquetParts:
    """Keep finished parts, as a RunStore does.

    Nobody else may write to the folder meanwhile. Raises ConfigError where it cannot be written, holds another run's
    results, or (on resume) results of other settings, inputs or part sizes.
    """

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, Any],
        inputs: RunInputs,
        *,
        actors: int,
        part_size: int | None = None,
        resume: bool = False,
    ) -> None:
        if part_size is not None and part_size < 1:
            raise ConfigError(f"parts of {part_size} rows: a part has at least 1")
        self.folder, self.settings, self.inputs = folder, settings, inputs
        begun = open_folder(folder, PARTS, resume=resume)
        before = read_record(folder, settings).get("parts", {}) if begun else {}
        default_size = before.get("size") or min(LARGEST_PART, math.ceil(len(inputs) / (_PARTS_PER_ACTOR * actors)))
        self.part_size = part_size or default_size
        self.count = math.ceil(len(inputs) / self.part_size)
        self._counts = RunCounts()
        # Numbers of the parts that have no file.
        self._missing: set[int] = set()
        self.digest = self._survey()
        self._refuse_others(before)
        self.finish(RunSummary(len(inputs), self._counts, resumed=self._counts.rows))

    def pending(self) -> Iterator[RunPart]:
        """Return the parts that are not done, in order."""
        return map(self._part, sorted(self._missing))

    def done(self) -> RunCounts:
        """Count the rows that are stored."""
        return self._counts

    def append(self, items: Sequence[FinishedPart]) -> RunCounts:
        """Put finished parts in place; a second time changes nothing. Raises OSError where the disk is full."""
        added = RunCounts()
        for part in items:
            if part.number in self._missing:
                target = self._part(part.number).file(self.folder)
                target.parent.mkdir(parents=True, exist_ok=True)
                atomic_write(target, part.data)
                self._missing.remove(part.number)
                added += part.counts
        self._counts += added
        return added

    def finish(self, summary: RunSummary) -> None:
        """Write `run.json`."""
        parts = {"size": self.part_size, "count": self.count, "inputs": self.digest}
        more = {"engine": "ray", "parts": parts, "duplicates": self.inputs.duplicates}
        write_record(self.folder, self.settings, summary, **more)

    def _part(self, number: int) -> RunPart:
        """Return part `number`, made of its slice of the inputs: nobody has to hold all of them as Python strings."""
        table = self.inputs.table.slice(number * self.part_size, self.part_size)
        return RunPart(number, table.column("path").to_pylist(), table.column("object").to_pylist())

    def _survey(self) -> str:
        """Find out which parts are done, and return the digest of all keys."""
        digests = []
        for part in map(self._part, range(self.count)):
            digests.append(part.digest)
            counts = read_counts(part.file(self.folder))
            if counts is None:
                self._missing.add(part.number)
            else:
                self._counts += counts
        return digest("".join(digests))[:_DIGITS]

    def _refuse_others(self, before: Mapping[str, Any]) -> None:
        """Raise ConfigError where the run was begun with parts of another size, or with other inputs."""
        if before.get("size", self.part_size) != self.part_size:
            difference = f"parts of {before['size']} rows"
        elif before.get("inputs", self.digest) != self.digest:
            difference = "other inputs"
        else:
            return
        raise ConfigError(
            f"cannot resume {self.folder}: it was begun with {difference}; use the same again, or choose another --out"
        )
