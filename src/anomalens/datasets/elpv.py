"""Read ELPV: electroluminescence images of solar cells, as shipped by the Python package `elpv-dataset`.

2,624 grey cells of 300 x 300 pixels with a defect probability (0, 1/3, 2/3 or 1: the experts' agreement) and the
kind of module (mono- or polycrystalline). Image-level only. Licence CC BY-NC-SA 4.0; sources: Buerhop-Lutz et al.,
EU PVSEC 2018; Deitsch et al., Solar Energy 185, 2019.
"""

import csv
import io
from dataclasses import dataclass
from pathlib import Path

from anomalens.datasets.layouts import Dataset, Sample
from anomalens.errors import ConfigError, InputError, one_line
from anomalens.extras import optional
from anomalens.files import atomic_write, digest

CLASS_NAMES = {"mono": "monocrystalline solar cell", "poly": "polycrystalline solar cell"}


@dataclass(frozen=True)
class SolarCell:
    """Describe a solar cell as the package labels it."""

    image: Path
    # That the cell is defective: 0, 1/3, 2/3 or 1.
    probability: float
    # "mono" or "poly", a key of CLASS_NAMES.
    module: str


def read_cells() -> tuple[SolarCell, ...]:
    """Return all cells in the package's order.

    The package's own loader decodes all images into memory (236 MB); its files are read by path instead.
    Raises MissingExtraError without the package, InputError where its labels are missing or of another form.
    """
    folder = Path(optional("elpv_dataset", "elpv").__path__[0]) / "data"
    table = folder / "labels.csv"
    cells = []
    try:
        for line in filter(str.strip, table.read_text(encoding="utf-8").split("\n")):
            path, probability, module = line.split()
            if module not in CLASS_NAMES:
                raise ValueError(f"unknown module '{module}'")
            cells.append(SolarCell(folder / path, float(probability), module))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{table}: expected rows 'images/cell0001.png 1.0 mono' ({one_line(error)}); "
            "reinstall it: pip install --force-reinstall elpv-dataset"
        ) from error
    return tuple(cells)


def open_elpv(cut: float = 0.5) -> Dataset:
    """Return all cells as a Dataset of two classes; defective where the probability exceeds `cut`.

    Raises ConfigError unless 0 <= cut < 1.
    """
    if not 0 <= cut < 1:
        raise ConfigError(f"cut is a defect probability in [0, 1), found {cut}; use 0.5 to follow the majority")
    cells = read_cells()
    samples = [_sample(cell, cell.probability > cut) for cell in cells]
    classes = {name: tuple(sample for sample in samples if sample.class_name == name) for name in CLASS_NAMES.values()}
    return Dataset("elpv", "manifest", cells[0].image.parent.parent, classes)


def demo_samples(count: int = 16, seed: int = 0) -> list[Sample]:
    """Return a balanced choice for demonstrations: functional cells (probability 0), then defective ones (1).

    Half of `count` each, one more functional for an odd count. The choice ranks cells by a hash of seed and name, so
    it is the same on every machine, and a larger count keeps what a smaller one had.
    Raises ConfigError where there are too few cells for `count`.
    """
    cells = read_cells()
    samples = []
    for probability, wanted in ((0.0, count - count // 2), (1.0, count // 2)):
        certain = [cell for cell in cells if cell.probability == probability]
        if not 0 < wanted <= len(certain):
            largest = 2 * sum(cell.probability == 1.0 for cell in cells) + 1
            raise ConfigError(f"count must be between 2 and {largest}, found {count}")
        certain.sort(key=lambda cell: digest(f"{seed}:{cell.image.name}"))
        samples += [_sample(cell, probability == 1.0) for cell in certain[:wanted]]
    return samples


def write_manifest(target: Path, cut: float = 0.5) -> Path:
    """Write `target/elpv.csv`, a manifest over the installed package's images; return its path."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["image", "label", "class", "split", "kind"])
    for sample in open_elpv(cut).samples():
        table.writerow([sample.image.as_posix(), sample.label, sample.class_name, sample.split, sample.kind])
    path = target / "elpv.csv"
    atomic_write(path, text.getvalue())
    return path


def _sample(cell: SolarCell, defective: bool) -> Sample:
    kind = f"defect probability {cell.probability:.2f}" if defective else "good"
    return Sample(cell.image, 1 if defective else 0, None, kind, CLASS_NAMES[cell.module], "test", cell.image.name)
