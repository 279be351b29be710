"""Draw scenes: a procedural photograph with the exact mask, kinds and words of its defects, as a function of a seed."""

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import numpy as np
import numpy.typing as npt

from anomalens.errors import ConfigError
from anomalens_lab.synthesis.camera import develop, develop_mask
from anomalens_lab.synthesis.captions import kind_phrases, state_captions
from anomalens_lab.synthesis.config import SynthesisConfig
from anomalens_lab.synthesis.fields import Bool, Field, generator, pick
from anomalens_lab.synthesis.rendering import Layer, Rendering, render
from anomalens_lab.synthesis.words import KINDS


@dataclass(frozen=True, eq=False)
class Scene:
    """Hold a picture and the whole truth about it."""

    # [H, W, 3].
    image: npt.NDArray[np.uint8]
    # [H, W], True where the picture was changed visibly by a defect.
    mask: Bool
    # [H, W], index into KINDS, 0 outside the mask.
    kinds: npt.NDArray[np.uint8]
    # Surface or part family, or "photograph".
    family: str
    # Words for the thing.
    subject: str
    # One sentence that is true of it.
    caption: str
    # One phrase for each kind of defect present; empty for a sound scene.
    defect_words: tuple[str, ...]
    seed: int

    @property
    def anomalous(self) -> bool:
        """Return True where the scene shows a defect."""
        return bool(self.defect_words)

    @property
    def kind_names(self) -> tuple[str, ...]:
        """Return the names of the defect kinds present, in the order of KINDS."""
        return tuple(KINDS[k] for k in np.unique(self.kinds) if k)


def _scene(seed: int, rendering: Rendering, image: Field, layers: tuple[Layer, ...]) -> Scene:
    size = rendering.shot.size
    kinds = np.zeros((size, size), np.uint8)
    for kind, layer in layers:
        kinds[develop_mask(layer, rendering.shot)] = KINDS.index(kind)
    present = tuple(KINDS[k] for k in np.unique(kinds) if k)
    if layers and not present:
        # All that was there has been lost in resampling: show the sound version instead of an unmarked fault.
        image = rendering.clean
    words = generator(seed, stream=1)
    caption = state_captions(rendering.subject, present, words)[0]
    phrases = tuple(str(pick(words, kind_phrases(k))) for k in present)
    return Scene(
        develop(image, rendering.shot),
        kinds > 0,
        kinds,
        rendering.family,
        rendering.subject,
        caption,
        phrases,
        seed,
    )


def scene(seed: int, config: SynthesisConfig | None = None) -> Scene:
    """Draw scene number `seed` (0 or more), the same in every process and thread with the same library versions.

    Raises ConfigError for a negative seed.
    """
    _check_seed(seed)
    rendering = render(seed, config or SynthesisConfig())
    return _scene(seed, rendering, rendering.faulty, rendering.layers)


def _check_seed(seed: int) -> None:
    if seed < 0:
        raise ConfigError(f"seed must be 0 or more, found {seed}")


def twins(seed: int, config: SynthesisConfig | None = None) -> tuple[Scene, Scene]:
    """Draw the same thing twice, under the same light and camera: (faulty, sound).

    In the rare case that no defect turned out visible both are sound. Raises ConfigError for a negative seed.
    """
    _check_seed(seed)
    rendering = render(seed, config or SynthesisConfig(), anomalous=True)
    return _scene(seed, rendering, rendering.faulty, rendering.layers), _scene(seed, rendering, rendering.clean, ())


def _chunk(task: tuple[int, int, SynthesisConfig]) -> list[Scene]:
    start, stop, config = task
    return [scene(seed, config) for seed in range(start, stop)]


def scenes(count: int, seed: int = 0, config: SynthesisConfig | None = None, *, workers: int = 0) -> Iterator[Scene]:
    """Draw scenes `seed` .. `seed + count - 1` in order; `workers` processes render ahead (0: in this process).

    The scenes do not depend on `workers`. A few chunks at most are held in memory. Raises ConfigError for a negative
    number.
    """
    if count < 0 or workers < 0:
        raise ConfigError(f"count and workers must be 0 or more, found count={count}, workers={workers}")
    config = config or SynthesisConfig()
    if workers == 0:
        for index in range(seed, seed + count):
            yield scene(index, config)
        return
    size = 16
    starts = iter(range(seed, seed + count, size))
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        tasks = ((s, min(s + size, seed + count), config) for s in starts)
        waiting = [pool.submit(_chunk, t) for _, t in zip(range(2 * workers), tasks, strict=False)]
        try:
            while waiting:
                done = waiting.pop(0).result()
                waiting += [pool.submit(_chunk, t) for _, t in zip(range(1), tasks, strict=False)]
                yield from done
        finally:
            for future in waiting:
                future.cancel()
