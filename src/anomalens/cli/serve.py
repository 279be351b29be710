"""Run `anomalens serve`: inspect on a page or over HTTP, with a history that remembers."""

import logging
import re
import socket
import sys
from pathlib import Path
from typing import Annotated

import typer

from anomalens.cli.console import Json
from anomalens.cli.load_options import load_options
from anomalens.errors import ConfigError
from anomalens.options import LoadOptions

_UNITS = {"h": 1 / 24, "d": 1.0, "w": 7.0, "y": 365.0}


@load_options(without=("recipe", "calibration", "threshold", "pixel_threshold"))
def serve(
    recipe: Annotated[
        list[Path] | None,
        typer.Option("--recipe", help="A part taught by `anomalens fit`; the page teaches others. May be repeated."),
    ] = None,
    store: Annotated[
        str, typer.Option(help="The history: sqlite:///FILE, or postgresql+psycopg://USER@HOST/NAME for a plant.")
    ] = "sqlite:///history.db",
    media: Annotated[
        Path | None, typer.Option(help="Folder of images; unless given, beside the SQLite file: history_media.")
    ] = None,
    host: Annotated[
        str, typer.Option(help="Interface to listen on; any but the loopback one needs --token-file.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 8000,
    token_file: Annotated[
        Path | None, typer.Option("--token-file", help="File with the token that every request must show.")
    ] = None,
    max_queue: Annotated[
        int,
        typer.Option(
            "--workers-max-queue", min=1, help="Images accepted and not answered; beyond that requests get 503."
        ),
    ] = 256,
    max_images: Annotated[int, typer.Option("--max-images", min=1, help="Images of a request.")] = 100,
    max_megabytes: Annotated[float, typer.Option("--max-megabytes", min=0.01, help="Size of an image.")] = 64,
    retention: Annotated[
        str | None, typer.Option(help="Delete inspections and their pictures after this time: 90d, 12h, 4w, 2y.")
    ] = None,
    as_json: Json = False,
    options: LoadOptions = LoadOptions(),
) -> None:
    """Serve a page to inspect, teach and look back on, and the same over HTTP.

    Nothing needs to be set up: the history is a file, and the page is at the address that is printed. What was
    accepted is answered, also after a crash: it is stored before it is judged.

    http://127.0.0.1:8000/docs describes every route; /healthz, /readyz and /metrics are for supervisors.
    Stop with Ctrl-C or SIGTERM: what was accepted is answered first.

    Examples:

      anomalens serve

      anomalens serve --recipe nut.anomalens --retention 90d

      anomalens serve --host 0.0.0.0 --token-file token --store postgresql+psycopg://inspector@db/plant --media images

      curl -F images=@photo.jpg -F recipe=nut http://127.0.0.1:8000/api/v1/inspections
    """
    from anomalens.cli.console import note, say_json, working
    from anomalens.process_memory import return_large_blocks
    from anomalens.serving.settings import ServeSettings, read_token

    require_packages()
    return_large_blocks()
    settings = ServeSettings(
        recipes=tuple(recipe or ()),
        store=store,
        media=media,
        host=host,
        port=port,
        token=None if token_file is None else read_token(token_file),
        max_queue=max_queue,
        max_images=max_images,
        max_bytes=int(max_megabytes * 2**20),
        retention_days=None if retention is None else days(retention),
        options=options,
    )
    from anomalens.serving.running import bind, log_to, run

    # --quiet sets the library's log to errors, --verbose to everything.
    level = logging.getLogger("anomalens").level
    log_to(sys.stderr, logging.INFO if level == logging.WARNING else level)
    with bind(host, port) as listener:
        with working("loading"):
            from anomalens.serving.web_app import create_app

            app = create_app(settings)
        address = f"http://{shown_host(host)}:{listener.getsockname()[1]}"
        if as_json:
            say_json({"address": address, "store": store, "media": str(settings.media_folder)})
        else:
            note(f"inspect at {address} (routes: {address}/docs); stop with Ctrl-C")
        run(app, listener)


def require_packages() -> None:
    """Raise MissingExtraError where the packages of the extra [serve] are not installed."""
    from anomalens.extras import optional

    for module in ("fastapi", "uvicorn", "sqlalchemy", "alembic", "python_multipart", "prometheus_client"):
        optional(module, "serve")


def days(text: str, name: str = "--retention") -> float:
    """Return a span of time in days: "90d", "12h", "4w", "2y". Raises ConfigError, which names the option."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([hdwy])", text.strip())
    if match is None or not float(match[1]):
        raise ConfigError(f"{name} {text}: a number above 0 and a unit, such as 90d, 12h, 4w or 2y")
    return float(match[1]) * _UNITS[match[2]]


def shown_host(host: str) -> str:
    """Return the host of an address that a browser can open: all interfaces are reached by the machine's name."""
    if host in ("0.0.0.0", "::"):
        return socket.gethostname()
    return f"[{host}]" if ":" in host else host
