"""Compare patches with those of good photographs, and join the distances with what words say: the default.

A memory in the family of PatchCore (Roth et al., CVPR 2022) and AnomalyDINO (Damm et al., WACV 2025):

    patches    every level: mean of `window` x `window` neighbours, unit length; levels joined; unit length
    memory     the patches of all views of all photographs, thinned to `rows` by greedy k-centre selection
    distance   d = half squared distance to the nearest row of the memory                       (1 - cosine)
    place      for the map, parts that always lie alike also count how far apart two patches lie in the image
    score      mean of the largest 1 % of  z(d without place) + words_weight * z(map of words)
    map        z(d with place) + map_words_weight * z(map of words), four cells a patch

z subtracts mean and divides by deviation, both of the photographs, each compared with the others only.

Where the photographs are very unlike each other (mean of d above 0.2), no memory of a few says what is ordinary, and
words decide alone. All constants of the join come from the good photographs, so an image's score never depends on other
images.

Ours: the join with words, and the decisions `turns` and `position` by the photographs themselves.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from anomalens.errors import ConfigError
from anomalens.methods.parts.array_namespace import Array, convert, like, namespace
from anomalens.methods.parts.fusion import Fusion, Scale
from anomalens.methods.parts.neighbours import Memory, build_memory, nearest
from anomalens.methods.parts.patches import describe, resampled, with_position
from anomalens.methods.parts.subspace import fit_subspace
from anomalens.methods.references.distances import fit_scales
from anomalens.methods.references.reference_method import (
    FINER,
    Compared,
    Descriptors,
    Joined,
    Owners,
    ReferenceConfig,
    ReferenceMethod,
    Words,
    register_reference,
)

WORDS_ALONE = "words_alone"
"""Name of the fitted number that is 1 where the photographs are too unlike each other to be compared with."""

# Mean distance of photographs to the others beyond which words decide alone.
_TOO_UNLIKE = 0.2
# Principal axes on which the selection of rows looks at patches, and every how many patches they are fitted to.
_AXES, _THINNING = 64, 4


@dataclass(frozen=True)
class Config(ReferenceConfig):
    """Hold the settings, chosen on drawn scenes that nothing was trained on and on photographs of hazelnuts."""

    # Decided by the photographs.
    turns: int = 0
    # Side of the neighbourhood that is averaged, in cells of a level; odd.
    window: int = 3
    # Rows of the memory at most; 0 keeps all.
    rows: int = 3000
    # Weights of words in the score and in the map; with 0 for the score words count in neither.
    words_weight: float = 0.5
    map_words_weight: float = 0.25
    # Weight of the place in the image, in the map; None: decided by the photographs; 0: the place counts nothing.
    position: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.window < 1 or self.window % 2 == 0:
            raise ConfigError(f"window {self.window} must be an odd number of cells: 1, 3 or 5")
        if self.rows < 0:
            raise ConfigError(f"rows {self.rows} must be at least 1, or 0 for all")
        if min(self.words_weight, self.map_words_weight, self.position or 0) < 0:
            raise ConfigError("words_weight, map_words_weight and position must not be negative")


@dataclass(frozen=True)
class Remembered:
    """Hold what is kept of good photographs."""

    # [R, D] patches, and [R, 2] where they lie: y, x in sides of the image.
    rows: Array
    places: Array
    # [R] number of the photograph that a row comes from.
    owners: Array


@register_reference(
    "memory",
    title="Good photos and words together: nearest patches joined with a zero-shot map",
    source="after Roth et al., CVPR 2022, and Damm et al., WACV 2025",
    year=2026,
    config=Config,
)
class PatchMemory(ReferenceMethod[Remembered]):
    """Join a memory of patches with a zero-shot method. Joined maps are in deviations from ordinary, 0 = ordinary."""

    config: Config
    remembers = Remembered

    @property
    def uses_words(self) -> bool:
        """Return whether words count."""
        return self.config.words_weight > 0

    @property
    def standardised(self) -> bool:
        """Return True: the join standardises."""
        return True

    def describe(self, levels: Sequence[Array]) -> Descriptors:
        """Describe patches on the grid of the second of three levels (stride 16 of the stem), or of the only one."""
        middle = levels[len(levels) // 2]
        return (describe(levels, (middle.shape[1], middle.shape[2]), self.config.window),)

    def remember(self, descriptors: Descriptors, owners: Owners, seed: int) -> Remembered:
        """Keep all patches, or a greedy k-centre selection of them."""
        (patches,) = descriptors
        channels = patches.shape[-1]
        # Places are the last two columns, at weight 1.
        whole = build_memory(list(with_position(convert(patches, "float32"), 1.0)))
        rows, places = whole.rows[:, :channels], whole.rows[:, channels:]
        photo = like(owners, rows)[like(whole.owners, rows)]
        if self.config.rows and self.config.rows < rows.shape[0]:
            axes = None
            if channels > _AXES:
                axes = convert(fit_subspace(rows[::_THINNING], 0.9999, _AXES).basis, "float32")
            chosen = Memory(rows, photo).selection(self.config.rows, seed, axes)
            rows, places, photo = rows[chosen], places[chosen], photo[chosen]
        return Remembered(rows, places, photo)

    def without(
        self, remembered: Remembered, descriptors: Descriptors, owners: Owners, photo: int, seed: int
    ) -> Remembered:
        """Leave out the rows of one photograph: the selection among the others stays."""
        kept = remembered.owners != photo
        return Remembered(remembered.rows[kept], remembered.places[kept], remembered.owners[kept])

    def compare(self, descriptors: Descriptors, remembered: Remembered) -> Compared:
        """Search the nearest row of each patch, with and without the place in the image."""
        (patches,) = descriptors
        patches = convert(patches, "float32")
        plain = _search(patches, remembered.rows)
        if not self.config.position:
            return Compared(plain, plain)
        rows = namespace(patches).concatenate([remembered.rows, self.config.position * remembered.places], -1)
        return Compared(plain, _search(with_position(patches, self.config.position), rows))

    def fit_join(self, ordinary: Compared, words: Words) -> Mapping[str, float]:
        """Fit mean and deviation of the distances and of the map of words."""
        alone = self.uses_words and float(ordinary.for_score.mean()) > _TOO_UNLIKE
        return fit_scales(ordinary, words) | {WORDS_ALONE: float(alone)}

    def join(self, compared: Compared, words: Words, fitted: Mapping[str, float]) -> Joined:
        """Add standardised maps."""
        distances, place, said = (
            Scale(fitted[f"{name}_mean"], fitted[f"{name}_deviation"]) for name in ("score", "map", "words")
        )
        height, width = compared.for_map.shape[1:]
        coarse, fine = (height, width), (FINER * height, FINER * width)
        if fitted[WORDS_ALONE]:
            maps = said.standardise(words.map)
            return Joined(resampled(maps, fine), score_map=resampled(maps, coarse))
        scoring = Fusion(distances, said, self.config.words_weight)
        mapping = Fusion(place, said, self.config.map_words_weight if self.uses_words else 0.0)
        return Joined(
            map=mapping.join(resampled(compared.for_map, fine), resampled(words.map, fine)),
            score_map=scoring.join(compared.for_score, resampled(words.map, coarse)),
        )


def _search(patches: Array, rows: Array) -> Array:
    """Return the distance of each patch [B, h, w, D] to the nearest row [B, h, w]."""
    return nearest(patches.reshape(-1, patches.shape[-1]), rows).reshape(patches.shape[:-1])
