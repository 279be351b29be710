"""Videos made on the spot: grey frames in which a bar on the left grows lighter from frame to frame."""

import io
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

STEP = 4
"""Levels by which the bar grows lighter."""


def encode(
    frames: int = 50,
    *,
    rate: int = 25,
    codec: str = "mpeg4",
    kind: str = "mp4",
    milliseconds: Sequence[int] | None = None,
    options: Mapping[str, str] | None = None,
) -> bytes:
    """Return a video of 64 x 48 pixels; skips where PyAV is not installed.

    milliseconds: the time of each frame; one every 1 / `rate` seconds unless given. options: of the container.
    """
    av: Any = pytest.importorskip("av")
    content = io.BytesIO()
    noise = np.random.default_rng(0).integers(60, 190, (48, 64, 1), np.uint8).repeat(3, axis=2)
    with av.open(content, "w", format=kind, options=dict(options or {})) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        if milliseconds is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        container.start_encoding()
        for number in range(frames):
            picture = noise.copy()
            picture[:, :16] = number * STEP % 256
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            if milliseconds is not None:
                frame.pts, frame.time_base = milliseconds[number], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return content.getvalue()


def write_clip(path: Path, frames: int = 50, **settings: Any) -> Path:
    """Write a video of `encode` to a file, whose folder is made; return the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode(frames, **settings))
    return path
