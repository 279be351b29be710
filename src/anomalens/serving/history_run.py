"""Show inspections of the history as a run, of which pages, annotations and contact sheets are made."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anomalens.images.encoding import encode_image
from anomalens.runs.store import Row
from anomalens.serving.answers import InspectionAnswer, inspection_answer
from anomalens.serving.history import Filters, History
from anomalens.serving.media import MediaFolder
from anomalens.serving.schema import Inspection
from anomalens.serving.stored_predictions import picture_of

# Pictures of a run, as `picture_of` calls them.
_DRAWN = {"heatmap": "overlay", "mask": "mask"}


@dataclass(frozen=True)
class HistoryRun:
    """Hold which inspections are meant, and where their pictures lie; a `Run`."""

    # What people call the history.
    name: str
    history: History
    media: MediaFolder
    filters: Filters

    @property
    def settings(self) -> Mapping[str, Any]:
        """Return which inspections are meant; what decided may differ from one to the next."""
        chosen = {name: value for name, value in vars(self.filters).items() if value is not None}
        return {"history": self.name} | chosen

    @property
    def versions(self) -> Mapping[str, Any]:
        """Return nothing: inspections of one history may have been made by several versions."""
        return {}

    @property
    def total(self) -> int:
        """Return 0: rows are read as they are, and more may come."""
        return 0

    def rows(self) -> Iterator[Row]:
        """Yield the inspections that have an answer, the oldest first, as rows of a run; `id` tells them apart."""
        for inspection in self.history.each(self.filters):
            if inspection.state != "waiting":
                yield _row(inspection)

    def picture(self, row: Row, name: str) -> Path | bytes | None:
        """Return the original's file, or a picture drawn of what is stored. Raises InputError where that is gone."""
        inspection = self.history.get(row["id"])
        if name == "image":
            return self.media.path(inspection.original)
        if name not in _DRAWN or inspection.map is None:
            return None
        return encode_image(picture_of(inspection, self.media, _DRAWN[name]), compress_level=1)


def _row(inspection: Inspection) -> Row:
    answer = inspection_answer(inspection)
    row = {name: value for name, value in answer.model_dump(exclude_unset=True).items() if value is not None}
    if answer.state == "failed":
        return {"id": answer.id, "path": answer.name, "error": answer.error or "unknown", "kind": "InputError"}
    return row | {"path": answer.name, "note": _note(answer)}


def _note(answer: InspectionAnswer) -> str:
    """Say when an image was inspected, by what, and what a person said of the answer."""
    parts = [answer.created.strftime("%Y-%m-%d %H:%M UTC")]
    if answer.recipe is not None:
        parts.append(f"recipe {answer.recipe.name}, version {answer.recipe.version}")
    if answer.review is not None:
        parts.append(f"reviewed: {answer.review.verdict}")
        parts += [answer.review.comment] if answer.review.comment else []
    parts += [answer.note] if answer.note else []
    return "; ".join(parts)
