"""Read what the tags of a TIFF say of its values."""

from dataclasses import dataclass
from typing import Any

from PIL import Image

_WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC, _ORIENTATION, _SAMPLES, _PLANES, _FORMAT = 256, 257, 258, 262, 274, 277, 284, 339
_SEPARATE = 2
_WHITE_IS_ZERO = 0
UNSIGNED, SIGNED, FLOAT = 1, 2, 3
_FORMAT_WORDS = {UNSIGNED: "unsigned integers", SIGNED: "signed integers", FLOAT: "floating point"}


@dataclass(frozen=True)
class TiffTags:
    """Hold what the tags of a TIFF's first page say."""

    width: int
    height: int
    # Channels, one of which may be transparency.
    samples: int
    # Bits of a value.
    bits: int
    # UNSIGNED, SIGNED or FLOAT.
    format: int
    white_is_zero: bool
    orientation: int
    # Whether each channel is stored by itself.
    planar: bool

    @classmethod
    def of(cls, tags: Any) -> "TiffTags":
        """Read the tags that Pillow or its reader of directories holds."""
        return cls(
            width=int(tags.get(_WIDTH, 0)),
            height=int(tags.get(_HEIGHT, 0)),
            samples=int(tags.get(_SAMPLES, 1)),
            bits=int(_first(tags.get(_BITS, 1))),
            format=int(_first(tags.get(_FORMAT, UNSIGNED))),
            white_is_zero=tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO,
            orientation=int(tags.get(_ORIENTATION, 1)),
            planar=tags.get(_PLANES) == _SEPARATE,
        )

    def __str__(self) -> str:
        channels = "1 channel" if self.samples == 1 else f"{self.samples} channels"
        kind = _FORMAT_WORDS.get(self.format, "values of an unknown kind")
        return f"a TIFF of {channels} of {self.bits}-bit {kind}"


def tags_of(picture: Image.Image) -> TiffTags | None:
    """Return the tags of an opened TIFF that Pillow reads; None for pictures of other kinds."""
    tags = getattr(picture, "tag_v2", None)
    return None if tags is None or picture.format != "TIFF" else TiffTags.of(tags)


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, tuple) else value
