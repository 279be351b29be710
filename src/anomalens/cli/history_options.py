"""Hold the options by which commands write their results into the history of `anomalens serve`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from anomalens.errors import ConfigError
from anomalens.options import LoadOptions

if TYPE_CHECKING:
    from anomalens.prediction import Result

Store = Annotated[
    str | None,
    typer.Option("--store", help="Also remember everything in the history of `anomalens serve`: sqlite:///FILE."),
]
Media = Annotated[
    Path | None, typer.Option("--media", help="With --store: folder of pictures, unless beside an SQLite file.")
]


@contextmanager
def remembering(
    store: str | None, media: Path | None, out: Path, options: LoadOptions
) -> "Iterator[Callable[[int, Path, Result], object] | None]":
    """Give what stores results in the history while the block runs; None without a store.

    Raises ConfigError where the store cannot be used, MissingExtraError where the extra [serve] is not installed.
    """
    if store is None:
        if media is not None:
            raise ConfigError("--media is the folder of pictures of a --store; name that too")
        yield None
        return
    from anomalens.cli.serve import require_packages

    require_packages()
    from anomalens.files import make_folder
    from anomalens.serving.recording import Recorder

    make_folder(out)
    recorder = Recorder(store, media, out, options)
    try:
        yield recorder.keep
    finally:
        recorder.close()
