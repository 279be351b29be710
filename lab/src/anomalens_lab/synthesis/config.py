"""Choose what is drawn: the families there are, and the configuration of scenes."""

from dataclasses import dataclass
from pathlib import Path

from anomalens.errors import ConfigError
from anomalens_lab.synthesis import arrays, electronics, goods, hardware, patterns  # noqa: F401  (they register families)
from anomalens_lab.synthesis.surfaces import SURFACES
from anomalens_lab.synthesis.words import KINDS
from anomalens_lab.synthesis.workshop import PARTS

SURFACE_FAMILIES: tuple[str, ...] = tuple(SURFACES)
PART_FAMILIES: tuple[str, ...] = tuple(PARTS)
FAMILIES: tuple[str, ...] = SURFACE_FAMILIES + PART_FAMILIES
# About a fifth of both, of unlike character, to be left out of training where choices are made on unseen families.
# No other family is built upon them, so excluding them removes every trace.
HELD_OUT_FAMILIES: tuple[str, ...] = (
    "knit", "embossed", "solar", "fibrous", "paper", "cast",
    "washer", "capsule", "chip", "blister", "tube",
)  # fmt: skip


@dataclass(frozen=True)
class SynthesisConfig:
    """Choose what is drawn. Shares are probabilities in 0..1.

    Raises ConfigError naming the option that is out of range, or names that do not exist.
    """

    # Side of the images, pixels, 64..1024.
    size: int = 256
    # Scenes without defect.
    normal_share: float = 0.38
    # Scenes showing parts; the others are surfaces.
    part_share: float = 0.5
    # Families to use; empty: all.
    include: tuple[str, ...] = ()
    # Families never drawn, nor seen as texture or ground of a part ("painted" takes their place where none is left).
    exclude: tuple[str, ...] = ()
    # Defect kinds to use.
    kinds: tuple[str, ...] = KINDS[1:]
    # Folders of texture photographs; may be empty.
    materials: tuple[Path, ...] = ()
    # Surfaces taken from photographs, where there are any.
    material_share: float = 0.4
    # Scenes without colour.
    grey_share: float = 0.25
    # Scenes squeezed from another aspect ratio (up to 1:4) into the square.
    squash_share: float = 0.3
    # Defects in one scene, 1..8.
    max_defects: int = 3
    # Defects that spread over much of the thing: long cracks, large areas that are worn, stained or discoloured.
    wide_share: float = 0.0

    def __post_init__(self) -> None:
        if not 64 <= self.size <= 1024:
            raise ConfigError(f"size must be within 64..1024 pixels, found {self.size}")
        for name in ("normal_share", "part_share", "material_share", "grey_share", "squash_share", "wide_share"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise ConfigError(f"{name} must be within 0..1, found {value}")
        for name, known in (("include", FAMILIES), ("exclude", FAMILIES), ("kinds", KINDS[1:])):
            unknown = sorted(set(getattr(self, name)) - set(known))
            if unknown:
                raise ConfigError(f"unknown names in {name}: {unknown}; expected some of {sorted(known)}")
        if not self.kinds:
            raise ConfigError("kinds is empty: name at least one defect kind, or set normal_share=1 for sound scenes")
        if not 1 <= self.max_defects <= 8:
            raise ConfigError(f"max_defects must be within 1..8, found {self.max_defects}")
        if not self.surfaces and not self.parts:
            raise ConfigError("include and exclude leave no family; exclude fewer")

    @property
    def surfaces(self) -> tuple[str, ...]:
        """Return the surface families in use."""
        return self._used(SURFACE_FAMILIES)

    @property
    def parts(self) -> tuple[str, ...]:
        """Return the part families in use."""
        return self._used(PART_FAMILIES)

    @property
    def skins(self) -> tuple[str, ...]:
        """Return surface families allowed as ground or texture of parts: those included, or else all not excluded."""
        return self.surfaces or tuple(f for f in SURFACE_FAMILIES if f not in self.exclude) or ("painted",)

    def _used(self, families: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(f for f in families if (not self.include or f in self.include) and f not in self.exclude)
