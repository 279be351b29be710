"""Keep the record of a run, `run.json`: settings, versions, counts and speed; refuse to go on under other settings."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from anomalens.errors import ConfigError
from anomalens.extras import versions
from anomalens.files import digest, make_folder, remove_unfinished, write_json
from anomalens.options import LoadOptions, differences
from anomalens.runs.store import RunSummary
from anomalens.typed_values import checked_value
from anomalens.untrusted import read_json

ROWS, PARTS = "predictions.jsonl", "rows"  # results of a run in one process, and of a run on a Ray cluster
_ENGINES = {ROWS: "local", PARTS: "ray"}
RECORD = "run.json"  # settings, counts and versions
_LONGEST_LIST = 8  # values of a setting that a message repeats
# Parts of a calibration that decide nothing by themselves: words, and what other settings record.
_NOT_COMPARED = ("source", "tiled_source", "pooling", "top", "options")


def open_folder(folder: Path, results: str, *, resume: bool) -> bool:
    """Make `folder` if need be, and return whether it holds `results` (ROWS or PARTS) of an earlier sitting.

    On `resume` the files that a killed process left unfinished are removed; nobody else may be writing to the folder
    (`locks.held_folder`).

    Raises ConfigError where the folder cannot be written, holds results that `resume` does not allow to go on with, or
    those of the other engine, or a link in the place of its results.
    """
    make_folder(folder)
    for name, engine in _ENGINES.items():
        if name != results and (folder / name).exists():
            raise ConfigError(f"{folder} holds a run of the engine {engine!r}; choose another --out, or that engine")
    if (folder / results).is_symlink():
        raise ConfigError(f"{folder / results} is a link, which no run makes; choose another --out")
    begun = (folder / results).exists()
    if begun and not resume:
        raise ConfigError(f"{folder} already holds a run; add --resume to go on with it, or choose another --out")
    if resume:
        remove_unfinished(folder)
    return begun


def read_record(folder: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `run.json` in `folder` holds.

    Raises ConfigError where it is missing or damaged, and where the run was made with other settings.
    """
    try:
        record: dict[str, Any] = checked_value(RECORD, read_json(folder / RECORD), dict[str, Any])
        before = checked_value("settings", record["settings"], dict[str, Any])
    except (ConfigError, KeyError) as error:
        raise ConfigError(f"{folder / RECORD} is missing or damaged, so the run cannot go on") from error
    if changes := _asked(differences(_flat(before), _flat(settings))):
        raise ConfigError(
            f"cannot resume {folder} with other settings: {'; '.join(changes.values())}. "
            "Use the same again, or choose another --out"
        )
    return record


def write_record(folder: Path, settings: Mapping[str, Any], summary: RunSummary, **more: Any) -> None:
    """Write `run.json`, with whatever `more` an engine has to say."""
    counts = summary.counts
    write_json(
        folder / RECORD,
        {
            "settings": settings,
            "counts": {
                "inputs": summary.total,
                "done": counts.rows,
                "failed": counts.failed,
                "anomalous": counts.anomalous,
                "normal": counts.normal,
                "unusable": counts.unusable,
            },
            "unusable_reasons": dict(counts.unusable_reasons),
            "seconds": round(summary.seconds, 3),
            "images_per_second": None if summary.rate is None else round(summary.rate, 3),
            "finished": counts.rows == summary.total,
            **more,
            "versions": versions(),
        },
    )


def _asked(changes: Mapping[str, str]) -> Mapping[str, str]:
    """Leave out what follows from another method, backbone or size, where one of these changed."""
    if not changes.keys() & {"method", "backbone", "size", "extra_sizes"}:
        return changes
    known = {*LoadOptions.names(), "maps", "set"} - ({"method_options"} if "method" in changes else set())
    return {name: phrase for name, phrase in changes.items() if name in known}


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Name each number of a calibration by itself ("calibration threshold"), so that a message names what differs."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if name == "calibration" and isinstance(value, Mapping):
            flat |= _flat({f"{name} {part}": number for part, number in value.items() if part not in _NOT_COMPARED})
        elif isinstance(value, (list, tuple)) and len(value) > _LONGEST_LIST:
            flat[name] = f"{len(value)} values ({digest(json.dumps(value))[:8]})"
        else:
            flat[name] = value
    return flat
