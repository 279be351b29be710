"""Decode what a detector is given, as its options say."""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from anomalens.images.decoding import Decoded, decode
from anomalens.images.image_files import MAX_PIXELS
from anomalens.images.pixel_values import Channels
from anomalens.images.preprocessing import Preprocess
from anomalens.options import LoadOptions


def read_image(
    image: Any,
    sizes: Sequence[Preprocess],
    options: LoadOptions,
    channels: Channels = "rgb",
    room: ExitStack | None = None,
) -> Decoded:
    """Decode an image that will be seen at `sizes`; `channels` and `room` are those of `decode`.

    Raises InputError where it cannot be read.
    """
    # Tiles are cut in source pixels, so they need all of them.
    least = max(size.size for size in sizes) if options.fast_jpeg and options.tile is None else None
    return decode(
        image,
        at_least=None if least is None else (least, least),
        channels=channels,
        max_pixels=options.max_pixels or MAX_PIXELS,
        truncated=options.truncated_jpeg,
        room=room,
    )
