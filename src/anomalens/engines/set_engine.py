"""Stand for scores that need the whole set of images: an engine for words, and a method that compares images.

It has an identity like every engine, so records and messages name it. It refuses to score a batch, because a batch is
not the set: `detection/together.py` looks at all images with the engine inside.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NoReturn

from anomalens.engines.contract import Engine, Floats
from anomalens.errors import ConfigError
from anomalens.methods.references.reference_method import QUARTERS
from anomalens.methods.sets.set_method import SetMethod


class SetEngine:
    """Join an engine for words with a method that compares the images of a set with each other."""

    def __init__(self, words: Engine, method: SetMethod) -> None:
        """Raise ConfigError where the engine cannot hand out what images are compared by."""
        self.words, self.method = words, method
        self.looking = words.with_levels()
        name = f"{words.identity.method} + {method.name}" if method.uses_words else method.name
        options = {**(words.identity.options if method.uses_words else {}), method.name: vars(method.config)}
        self.identity = replace(words.identity, method=name, options=options)

    @property
    def runtime(self) -> str:
        """Say what computes."""
        return self.words.runtime

    @property
    def parallel(self) -> int:
        """Say how many batches are worth looking at at the same time."""
        return self.words.parallel

    def for_object(self, name: str) -> "SetEngine":
        """Return the same with prompts about `name`; itself where it has these already."""
        words = self.words.for_object(name)
        return self if words is self.words else SetEngine(words, self.method)

    def with_levels(self, depths: Sequence[float] = QUARTERS) -> NoReturn:
        """Raise ConfigError: images are compared with each other already."""
        raise ConfigError(
            f"{self.method.name} compares a folder with itself and learns nothing; load another method to teach it"
        )

    def score_batch(self, pixels: Floats, keys: Sequence[int], sharing: int = 1) -> NoReturn:
        """Raise ConfigError: a batch is not the set."""
        raise ConfigError(
            f"{self.method.name} scores a whole set of images against each other, not one image alone: use "
            "predict_many with a folder or a list, or another method"
        )
