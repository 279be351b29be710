"""Lay pictures out as one: the good photographs of a taught part, the images of a run that stand out most."""

import heapq
import io
import math
import os
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePath

from PIL import Image, ImageDraw, ImageFont

from anomalens.detection.observing import Photo
from anomalens.files import atomic_write
from anomalens.images.decoding import decode
from anomalens.images.encoding import encode_image
from anomalens.names import on_one_line
from anomalens.reporting.rendering import Progress
from anomalens.reporting.run_page import standing_out
from anomalens.reporting.thumbnails import original, stored_picture, with_boxes
from anomalens.runs.store import Row
from anomalens.runs.stored_run import Run
from anomalens.threads import map_or_raise


@dataclass(frozen=True)
class _Grid:
    """Describe how pictures are laid out; lengths in pixels."""

    # Longest side of a picture, height of a line of text below it, space around both.
    side: int
    line: int
    margin: int
    # Letters of a line that fit below a picture.
    letters: int


_PHOTOS = _Grid(side=96, line=14, margin=8, letters=16)
_RUN = _Grid(side=220, line=20, margin=16, letters=26)
# Images of a run on a picture, on a page of a PDF (A4 at 150 dots an inch), and in all.
_ON_A_PICTURE, _COLUMNS, _ROWS, _MOST = 100, 5, 6, 1000
_PAGE, _DOTS = (1240, 1754), 150
_LONGEST_TITLE = 80  # letters
# Black and the colours of labels on white, readable when printed.
_INK = "black"
_COLOURS = {"anomalous": "#9c3606", "normal": "#0b62b8", "unusable": "#a12622"}


@dataclass(frozen=True)
class _Tile:
    """Hold a picture and the lines below it, each with its colour."""

    # None where there is no picture.
    picture: Image.Image | None
    lines: Sequence[tuple[str, str]]


def write_contact_sheet(photos: Sequence[Photo], path: str | os.PathLike[str]) -> None:
    """Write photographs of a taught part, at least one, as PNG, atomically; about as many rows as columns.

    Raises InputError where a small picture in the file cannot be read, OSError where `path` cannot be written.
    """
    tiles = [
        _Tile(Image.fromarray(decode(photo.thumbnail).rgb), [(PurePath(photo.name).name, _INK)]) for photo in photos
    ]
    atomic_write(path, encode_image(_laid_out(tiles, math.ceil(math.sqrt(len(tiles))), _PHOTOS)))


def write_run_picture(run: Run, folder: Path, progress: Progress | None = None) -> list[Path]:
    """Write contact-sheet.png into `folder`, atomically: at most 100 images of a run, those that stand out most first.

    `progress` is called with the number of images drawn and of images to draw. Raises OSError.
    """
    tiles = list(_tiles(run, _ON_A_PICTURE, progress))
    path = folder / "contact-sheet.png"
    atomic_write(path, encode_image(_laid_out(tiles, max(1, math.ceil(math.sqrt(len(tiles)))), _RUN)))
    return [path]


def write_run_document(run: Run, folder: Path, progress: Progress | None = None) -> list[Path]:
    """Write contact-sheet.pdf into `folder`, atomically: at most 1,000 images of a run on pages of A4.

    Arguments and errors as for `write_run_picture`.
    """
    tiles = list(_tiles(run, _MOST, progress))
    cuts = [tiles[start : start + _COLUMNS * _ROWS] for start in range(0, len(tiles), _COLUMNS * _ROWS)] or [[]]
    pages = []
    for number, cut in enumerate(cuts, start=1):
        page = Image.new("RGB", _PAGE, "white")
        page.paste(_laid_out(cut, _COLUMNS, _RUN), (22, 40))
        title = f"{_in_plain_letters(run.name)[:_LONGEST_TITLE]}, page {number} of {len(cuts)}"
        ImageDraw.Draw(page).text((38, 24), title, fill=_INK, font=ImageFont.load_default(18))
        pages.append(page)
    buffer = io.BytesIO()
    pages[0].save(buffer, "PDF", save_all=True, append_images=pages[1:], resolution=_DOTS, title=run.name)
    path = folder / "contact-sheet.pdf"
    atomic_write(path, buffer.getvalue())
    return [path]


def _tiles(run: Run, most: int, progress: Progress | None) -> Iterator[_Tile]:
    """Yield the images of a run that stand out most, drawn in background threads."""
    rows = heapq.nsmallest(most, (row for row in run.rows() if "error" not in row), key=standing_out)
    for number, (_, tile) in enumerate(map_or_raise(rows, partial(_tile, run)), start=1):
        if progress:
            progress(number, len(rows))
        yield tile


def _tile(run: Run, row: Row) -> _Tile:
    picture = stored_picture(run, row, "heatmap", _RUN.side)
    if picture is None and (image := original(run, row, _RUN.side)) is not None:
        picture = with_boxes(image, row)
    label = row["label"]
    score = "" if label == "unusable" else f" {row['score']:.3f}"
    return _Tile(picture, [(_name(row["path"]), _INK), (f"{label}{score}", _COLOURS[label])])


def _name(path: str) -> str:
    """Return the name of an image with its folder, because names like 001.png are in many."""
    return "/".join(path.replace("\\", "/").rsplit("/", 2)[-2:])


def _laid_out(tiles: Sequence[_Tile], columns: int, grid: _Grid) -> Image.Image:
    """Return pictures in rows on white, each with its lines below it."""
    lines = max((len(tile.lines) for tile in tiles), default=1)
    width, height = grid.side + grid.margin, grid.side + lines * grid.line + grid.margin
    rows = max(1, math.ceil(len(tiles) / columns))
    sheet = Image.new("RGB", (columns * width + grid.margin, rows * height + grid.margin), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(grid.line * 0.7)
    for number, tile in enumerate(tiles):
        left, top = grid.margin + number % columns * width, grid.margin + number // columns * height
        if tile.picture is not None:
            picture = tile.picture.copy()
            picture.thumbnail((grid.side, grid.side))
            place = left + (grid.side - picture.width) // 2, top + (grid.side - picture.height) // 2
            sheet.paste(picture, place)
        for index, (text, colour) in enumerate(tile.lines):
            shown = _in_plain_letters(text)
            shown = shown if len(shown) <= grid.letters else f"...{shown[3 - grid.letters :]}"
            pen.text((left, top + grid.side + index * grid.line), shown, fill=colour, font=font)
    return sheet


def _in_plain_letters(text: str) -> str:
    """Return a text in ASCII, as the font that Pillow brings has no other letters: "ü" as "u", others as "?"."""
    parts = unicodedata.normalize("NFKD", on_one_line(text))
    return "".join(sign for sign in parts if not unicodedata.combining(sign)).encode("ascii", "replace").decode()
