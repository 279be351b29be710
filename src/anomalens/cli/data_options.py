"""Hold the options of commands that choose among images."""

from typing import Annotated

import typer

Exclude = Annotated[
    list[str] | None,
    typer.Option("--exclude", help="Leave out images or folders of this name or path, a pattern; repeatable."),
]
NormalName = Annotated[
    list[str] | None,
    typer.Option("--normal-name", help="A further name of folders, or label, of normal images; repeatable."),
]
