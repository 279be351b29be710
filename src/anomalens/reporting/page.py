"""Self-contained HTML: one file, no network, light and dark by the reader's own setting."""

from collections.abc import Collection, Iterable, Sequence
from html import escape
from importlib import resources
from string import Template


def page(title: str, body: str, more_style: str = "") -> str:
    """A whole page around `body` (HTML); `title` is plain text."""
    text = template("page.html").substitute(title=escape(title), style=_read("style.css") + more_style, body=body)
    return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


def template(name: str) -> Template:
    """A file of templates/, with its $placeholders."""
    return Template(_read(name))


def table(
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    foot: Sequence[str] | None = None,
    caption: str = "",
    wordy: Collection[str] = (),
) -> str:
    """An HTML table in a frame that scrolls sideways; head and cells are HTML, the first of a row is its heading.

    `wordy` names the columns that hold words: they stand to the left and break into lines.
    """
    kinds = ['class="words"' if name in wordy else "" for name in head]
    columns = "".join(f'<th scope="col" {kind}>{cell}</th>' for cell, kind in zip(head, kinds, strict=True))
    parts = [f"<thead><tr>{columns}</tr></thead>", "<tbody>", *(_row(row, kinds) for row in rows), "</tbody>"]
    if foot is not None:
        parts.append(f"<tfoot>{_row(foot, kinds)}</tfoot>")
    title = f"<caption>{caption}</caption>" if caption else ""
    # A frame that scrolls must be reachable by keyboard, and then needs a name.
    label = escape(caption or "table", quote=True)
    frame = f'<div class="scroll" tabindex="0" role="region" aria-label="{label}">'
    return f"{frame}<table>{title}{''.join(parts)}</table></div>"


def words(text: str, kind: str = "") -> str:
    """Plain text as a cell's HTML, in one of the style sheet's classes where `kind` names one."""
    return f'<span class="{kind}">{escape(text)}</span>' if kind else escape(text)


def _row(cells: Sequence[str], kinds: Sequence[str]) -> str:
    first, *rest = cells
    others = "".join(f"<td {kind}>{cell}</td>" for cell, kind in zip(rest, kinds[1:], strict=True))
    return f'<tr><th scope="row">{first}</th>{others}</tr>'


def _read(name: str) -> str:
    return resources.files("anomalens.reporting").joinpath("templates", name).read_text(encoding="utf-8")
