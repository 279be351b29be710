"""List what a run can be written as, so that every command offers the same formats under the same names."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from anomalens.errors import ConfigError
from anomalens.extras import optional
from anomalens.names import closest
from anomalens.reporting.annotations import write_coco, write_label_studio
from anomalens.reporting.contact_sheet import write_run_document, write_run_picture
from anomalens.reporting.overlay_video import write_overlay_video
from anomalens.reporting.rendering import Progress
from anomalens.reporting.run_page import write_run_pages
from anomalens.reporting.run_tables import write_csv, write_parquet, write_workbook
from anomalens.runs.stored_run import Run

PAGE_NAME = "report.html"


@dataclass(frozen=True)
class Format:
    """Describe one format of a run's results."""

    # What is written, in words.
    words: str
    # Writes files of a run into a folder and returns their paths.
    write: Callable[[Run, Path, Progress | None], list[Path]]
    # Package that it needs, and the extra that brings it.
    needs: tuple[str, str] | None = None


def _page(run: Run, folder: Path, progress: Progress | None) -> list[Path]:
    return write_run_pages(run, folder / PAGE_NAME, progress)


FORMATS = {
    "html": Format("pages to look at, report.html", _page),
    "csv": Format("predictions.csv and regions.csv", lambda run, folder, _: write_csv(run, folder)),
    "xlsx": Format(
        "a workbook, predictions.xlsx", lambda run, folder, _: write_workbook(run, folder), ("openpyxl", "xlsx")
    ),
    "parquet": Format("predictions.parquet", lambda run, folder, _: write_parquet(run, folder), ("pyarrow", "data")),
    "coco": Format("regions as annotations, coco.json", write_coco),
    "label-studio": Format("regions to be corrected by people, label-studio.json", write_label_studio),
    "png": Format("the images that stand out most as one picture, contact-sheet.png", write_run_picture),
    "pdf": Format("the same to be printed, contact-sheet.pdf", write_run_document),
    "mp4": Format("of a video: what stands out in every frame, overlay.mp4", write_overlay_video, ("av", "video")),
}
"""Formats by name. Rows as JSON lines are no format: they are the record of a run, which is always written."""


def chosen_formats(texts: Sequence[str]) -> list[str]:
    """Return the formats that texts like "csv,xlsx" name, each once, "jsonl" left out: it is there already.

    Raises ConfigError for a name that is none, MissingExtraError where a format needs a package that is not installed:
    both are known before anything is computed.
    """
    names = dict.fromkeys(name.strip() for text in texts for name in text.split(",") if name.strip() != "jsonl")
    for name in names:
        if name not in FORMATS:
            known = ("jsonl", *FORMATS)
            close = closest(name, known)
            hint = f" (did you mean {close}?)" if close else ""
            raise ConfigError(f"unknown format {name!r}{hint}; there are {', '.join(known)}")
        if needs := FORMATS[name].needs:
            optional(*needs)
    return list(names)


def write_formats(run: Run, names: Sequence[str], folder: Path, progress: Progress | None = None) -> list[Path]:
    """Write a run into a folder in every format named; return the paths of all files. Raises as the formats do."""
    return [path for name in names for path in FORMATS[name].write(run, folder, progress)]
