"""Hold the options of commands that judge what comes one after the other."""

from typing import Annotated

import typer

EVERY = "1s"
"""How often a frame of a video is judged unless the user says."""

Every = Annotated[
    str | None,
    typer.Option(
        "--every", help=f"Of a video: judge a frame each 1s, 250ms or 5m, or each 'frame'; {EVERY} unless given."
    ),
]
Duration = Annotated[
    str | None, typer.Option("--for", help="Of a video, camera, stream or folder watched: stop after 30s, 10m, 2h.")
]
