"""Add pages to the site that have no file in docs/: files of the repository, notebooks, and the list of commands.

MkDocs calls the functions whose names begin with `on_` (see `hooks` in mkdocs.yml).
"""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from typer.main import get_command

from anomalens.cli.app import app
from anomalens.options import LoadOptions

ROOT = Path(__file__).parents[2]
NOTEBOOKS = ROOT / "examples/notebooks"
# Pages that stand in the repository's root, and their names on the site.
FROM_ROOT = {"CONTRIBUTING.md": "contributing.md", "SECURITY.md": "security.md", "CHANGELOG.md": "changes.md"}
OPTIONS = {option.name for option in fields(LoadOptions)}
# The heading of the options that many commands share.
SHARED = "Options of loading"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made here."""
    made = {name: (ROOT / source).read_text(encoding="utf-8") for source, name in FROM_ROOT.items()}
    # The changes of many years would hide what a search is for.
    made["changes.md"] = f"---\nsearch: {{exclude: true}}\n---\n\n{made['changes.md']}"
    made["commands.md"] = "\n".join(command_page())
    for notebook in sorted(NOTEBOOKS.glob("*.ipynb")):
        made[f"notebooks/{notebook.stem}.md"] = "\n\n".join(notebook_page(notebook))
    for name, text in made.items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turn what leads to files of the repository into links of the site; `docs/scale.md` becomes a link too."""
    above = "../" * page.file.src_uri.count("/")
    for source, name in FROM_ROOT.items():
        markdown = markdown.replace(f"`{source}`", f"[{source}](../{source})")
        markdown = markdown.replace(f"](../{source}", f"]({above}{name}")
    markdown = re.sub(r"\]\(\.\./examples/notebooks/([\w-]+)\.ipynb\)", rf"]({above}notebooks/\1.md)", markdown)
    return re.sub(r"`docs/([\w-]+)\.md`", rf"[\1]({above}\1.md)", markdown)


def on_post_page(output: str, page: Any, **_: Any) -> str:
    """Name the dialogue of the search.

    Raises PluginError where a page loads anything from elsewhere, or a list goes on within a paragraph: Markdown wants
    an empty line before its next entry.
    """
    fetched = re.findall(r"""(?:\bsrc=|<link[^>]*\bhref=)["']?(https?://[^"' >]+)""", output)
    if fetched:
        raise PluginError(f"{page.file.src_uri} loads {', '.join(fetched)}")
    swallowed = re.findall(r"<p>(?:(?!</p>)[\s\S])*?\n(\d+\. \S+)", output)
    if swallowed:
        raise PluginError(f"{page.file.src_uri}: an empty line is missing before {swallowed[0]!r}")
    return output.replace('role="dialog"', 'role="dialog" aria-label="Search"')


def notebook_page(path: Path) -> Iterator[str]:
    """Yield the parts of a notebook as Markdown: text, code, and what was printed or drawn."""
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        text = "".join(cell["source"])
        yield text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```"
        for output in cell.get("outputs", ()):
            data = output.get("data", {"text/plain": output.get("text", "")})
            if "image/png" in data:
                encoded = "".join(data["image/png"]).replace("\n", "")
                yield f"![What the code above draws](data:image/png;base64,{encoded})"
            else:
                yield f"```text\n{''.join(data['text/plain']).rstrip()}\n```"
    yield f"*This page is the notebook `{path.relative_to(ROOT).as_posix()}`, with what it printed.*"


def command_page() -> Iterator[str]:
    """Yield the lines of a page that lists every command with its arguments and flags."""
    yield "# Commands\n\nWhat `anomalens COMMAND --help` says."
    root = get_command(app)
    yield from described("anomalens", root)
    yield f"\n## {SHARED}\n\nThe same in every command that loads a detector, and keywords of `load_detector`.\n"
    yield from table(parameter for parameter in root.commands["evaluate"].params if parameter.name in OPTIONS)  # type: ignore[attr-defined]


def described(name: str, command: Any) -> Iterator[str]:
    """Yield the lines about a command and about all commands below it."""
    for inner, below in getattr(command, "commands", {}).items():
        yield from described(f"{name} {inner}", below)
    if hasattr(command, "commands"):
        return
    yield f"\n## {name}\n"
    # Examples are indented in the help as code is in Markdown, but less, and each stands alone.
    text = re.sub(r"\[bold\](.*?)\[/\]", r"`\1`", command.help or "")
    yield re.sub(r"^    (.*)\n\n(?=    )", r"    \1\n", re.sub("^ +", "    ", text, flags=re.M), flags=re.M) + "\n"
    shown = [parameter for parameter in command.params if not getattr(parameter, "hidden", False)]
    yield from table(parameter for parameter in shown if parameter.name not in OPTIONS)
    shared = [parameter for parameter in shown if parameter.name in OPTIONS]
    if shared:
        names = ", ".join(f"`{parameter.opts[0]}`" for parameter in shared)
        yield f"\n[{SHARED}](#{SHARED.lower().replace(' ', '-')}): {names}\n"


def table(parameters: Iterable[Any]) -> Iterator[str]:
    """Yield the lines of a table of arguments and flags."""
    yield "| argument or flag | meaning |\n|---|---|"
    for parameter in parameters:
        argument = parameter.param_type_name == "argument"
        names = [parameter.name.upper()] if argument else [*parameter.opts, *parameter.secondary_opts]
        meaning = " ".join((parameter.help or "").split()).replace("|", "&#124;")
        yield f"| {'<br>'.join(f'`{name}`' for name in names)} | {meaning} |"
