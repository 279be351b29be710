"""Partitioned rows on disk, each input exactly once.

    DIR/rows/part=00012/<digest of the part's keys>.parquet
    DIR/run.json

The inputs, in order, are cut into parts of a fixed size. What a part is called follows from its number and its keys
alone, and it is put in place whole, by a rename. So whoever finishes a part, and however often, the result is the same
one file: a part that is there is done, one that is not is done again. Nothing else is a record of progress.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anomalens.errors import ConfigError
from anomalens.extras import optional
from anomalens.files import atomic_write
from anomalens.runs.folder import PARTS, ROWS, RunSummary, already_there, check_settings, open_folder, write_record
from anomalens.runs.ray_inputs import Inputs

LARGEST_PART = 1024  # rows; what a dead worker loses at most, and the size of a file
_PARTS_PER_ACTOR = 4  # at least, so that no actor waits long for the last one
_COUNTS = b"anomalens"  # metadata of a part's file


@dataclass(frozen=True)
class Counts:
    """What a part came to."""

    rows: int
    failed: int
    anomalous: int
    lowest: float | None = None  # score; None where all failed
    highest: float | None = None

    @classmethod
    def of(cls, rows: Sequence[dict[str, Any]]) -> "Counts":
        """Of rows as `Prediction.to_dict` and `Failure.to_dict` give them."""
        scores = [row["score"] for row in rows if "score" in row]
        failed = sum("error" in row for row in rows)
        anomalous = sum(row.get("label") == "anomalous" for row in rows)
        return cls(len(rows), failed, anomalous, min(scores, default=None), max(scores, default=None))

    def add_to(self, summary: RunSummary) -> None:
        """Count the part in; of the scores only the extremes are kept."""
        summary.done += self.rows
        summary.failed += self.failed
        summary.anomalous += self.anomalous
        scores = [*summary.scores, *(one for one in (self.lowest, self.highest) if one is not None)]
        summary.scores = [min(scores), max(scores)] if scores else []


def schema() -> Any:
    """The columns (pyarrow.Schema): those of `Prediction.to_dict` and `error`, which is null where all went well."""
    pa = optional("pyarrow", "ray")
    whole = pa.list_(pa.int32())
    region = pa.struct([("box", whole), ("area", pa.int64()), ("peak", pa.float64()), ("peak_at", whole)])
    return pa.schema(
        [
            pa.field("path", pa.string(), nullable=False),
            ("error", pa.string()),
            ("score", pa.float64()),
            ("label", pa.string()),
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


def encode(rows: Sequence[dict[str, Any]], counts: Counts) -> bytes:
    """The rows as one Parquet file, compressed with Zstandard; `counts` go into its metadata."""
    pa, pq = optional("pyarrow", "ray"), optional("pyarrow.parquet", "ray")
    table = pa.Table.from_pylist(list(rows), schema().with_metadata({_COUNTS: json.dumps(vars(counts))}))
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return bytes(sink.getvalue())


def read_counts(path: Path) -> Counts | None:
    """What the file of a part says of it; None where it is missing or damaged, that is, not done."""
    pa, pq = optional("pyarrow", "ray"), optional("pyarrow.parquet", "ray")
    try:
        footer = pq.read_metadata(path)
        counts = Counts(**json.loads(footer.metadata[_COUNTS]))
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError):
        return None
    return counts if counts.rows == footer.num_rows else None


@dataclass(frozen=True)
class Part:
    """A piece of the inputs."""

    number: int
    paths: list[str]
    objects: list[str | None]

    @property
    def digest(self) -> str:
        """Of its keys; the same wherever and whenever it is computed."""
        return hashlib.sha256(json.dumps([self.paths, self.objects]).encode()).hexdigest()[:20]

    def file(self, folder: Path) -> Path:
        """Where its rows go in the folder of a run."""
        return folder / PARTS / f"part={self.number:05d}" / f"{self.digest}.parquet"


class PartFolder:
    """The folder of one run of the engine "ray".

    Raises:
        ConfigError: the folder cannot be written, holds another run's results, or (on resume) results of other
            settings, inputs or part sizes.
    """

    def __init__(
        self,
        folder: Path,
        settings: dict[str, Any],
        inputs: Inputs,
        *,
        actors: int,
        part_size: int | None = None,
        resume: bool = False,
    ) -> None:
        if part_size is not None and part_size < 1:
            raise ConfigError(f"parts of {part_size} rows: a part has at least 1")
        open_folder(folder)
        self.folder, self.settings, self.inputs = folder, settings, inputs
        if (folder / ROWS).exists():
            raise ConfigError(f"{folder} holds a run of the engine 'local'; choose another --out, or that engine")
        begun = (folder / PARTS).is_dir() and any((folder / PARTS).iterdir())
        if begun and not resume:
            raise already_there(folder)
        before = check_settings(folder, settings).get("parts", {}) if begun else {}
        asked = part_size or before.get("size")
        self.part_size = asked or min(LARGEST_PART, math.ceil(len(inputs) / (_PARTS_PER_ACTOR * actors)))
        self.count = math.ceil(len(inputs) / self.part_size)
        self._pending: list[int] = []  # what is not there at the start
        self.summary = RunSummary(len(inputs))
        self._survey(before)
        self._unwritten = set(self._pending)
        (folder / PARTS).mkdir(exist_ok=True)
        self.describe()

    def _survey(self, before: dict[str, Any]) -> None:
        """Find out what is done, and that it is of this run."""
        digest = hashlib.sha256()
        done = []
        for part in map(self.part, range(self.count)):
            digest.update(part.digest.encode())
            counts = read_counts(part.file(self.folder)) if before else None
            if counts is None:
                self._pending.append(part.number)
            else:
                done.append(counts)
        self.digest = digest.hexdigest()[:20]
        for name, now in (("size", self.part_size), ("inputs", self.digest)):
            if before.get(name, now) != now:
                what = "inputs" if name == "inputs" else f"parts of {before[name]} rows"
                raise ConfigError(
                    f"cannot resume {self.folder}: it was begun with {'other ' if name == 'inputs' else ''}{what}; "
                    "give the same again, or choose another --out"
                )
        for counts in done:
            counts.add_to(self.summary)
        self.summary.resumed, self.summary.scores = self.summary.done, []

    def pending(self) -> Iterator[Part]:
        """The parts that are not done, in order."""
        return map(self.part, self._pending)

    def part(self, number: int) -> Part:
        """Part `number`, made of its slice of the inputs: nobody has to hold all of them as Python strings."""
        one = self.inputs.table.slice(number * self.part_size, self.part_size)
        return Part(number, one.column("path").to_pylist(), one.column("object").to_pylist())

    def write(self, part: Part, data: bytes, counts: Counts) -> None:
        """Put a part in place; a second time changes nothing. Raises OSError where the disk is full."""
        if part.number not in self._unwritten:
            return
        target = part.file(self.folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(target, data)
        self._unwritten.discard(part.number)
        counts.add_to(self.summary)

    def describe(self) -> None:
        """Write `run.json`."""
        parts = {"size": self.part_size, "count": self.count, "inputs": self.digest}
        write_record(
            self.folder,
            self.settings,
            self.summary,
            engine="ray",
            parts=parts,
            duplicates=self.inputs.duplicates,
        )
