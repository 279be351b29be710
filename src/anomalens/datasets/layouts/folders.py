"""Layouts that speak through folder names: mvtec, folders, flat.

Each reader gives samples and the faults of pairing; headers are checked afterwards, for all layouts alike.
"""

from pathlib import Path
from typing import Literal

from anomalens.datasets.layouts.model import Fault, Sample, Split
from anomalens.datasets.layouts.pairing import (
    Pairing,
    leftover_faults,
    list_folders,
    list_images,
    list_masks,
    natural,
    pair,
)
from anomalens.images.sources import is_image_name

# Names of folders with normal images: MVTec "good", BTAD "ok", the medical sets "no" and "normal".
NORMAL_NAMES = frozenset({"good", "ok", "normal", "no"})
ANOMALOUS_NAMES = (
    "anomalous",
    "abnormal",
    "anomaly",
    "anomalies",
    "defective",
    "defect",
    "defects",
    "bad",
    "ko",
)
MASK_NAMES = ("ground_truth", "masks", "mask", "gt")

Read = tuple[list[Sample], list[Fault]]


def read_mvtec(classes: list[Path]) -> Read:
    """`<class>/{train,test}/<kind>/*` with masks in `<class>/ground_truth/<kind>/`.

    Images directly in `test/` are unlabelled. A class without any mask is image-level only, which is no fault.
    """
    samples: list[Sample] = []
    faults: list[Fault] = []
    for folder in classes:
        masks = _subfolder(folder, MASK_NAMES)
        seen: set[str] = set()
        found: list[Sample] = []
        pairings: list[Pairing] = []
        for split in ("train", "test"):
            part = folder / split
            found += [_sample(image, None, None, "", folder.name, split, folder.parent) for image in list_images(part)]
            for kind in list_folders(part):
                label = _label(kind.name)
                # Train and test may use the same file names, so only one of them can own the masks: test.
                owned = masks is not None and not (split == "train" and (folder / "test" / kind.name).is_dir())
                pairing = pair(list_images(kind), list_masks(masks / kind.name) if masks and owned else [])
                if owned:
                    seen.add(kind.name)
                    pairings.append(_forgive(pairing) if label == 0 else pairing)
                found += [
                    _sample(
                        image,
                        label,
                        pairing.masks.get(image),
                        "good" if label == 0 else kind.name,
                        folder.name,
                        split,
                        folder.parent,
                    )
                    for image in list_images(kind)
                ]
        if masks is not None:
            pairings += [Pairing(masks_left=list_masks(kind)) for kind in list_folders(masks) if kind.name not in seen]
        samples += found
        faults += _class_faults(folder, found, pairings)
    return samples, faults


def read_folders(classes: list[Path]) -> Read:
    """`normal/` and `anomalous/`, masks beside them in `masks/` or `ground_truth/`; everything is test data.

    `anomalous/` may hold one subfolder per kind of defect; masks then lie in equal subfolders or all together.
    Without `normal/` the set is pixel-level only; `images/` with `masks/` is such a set too.
    """
    samples: list[Sample] = []
    faults: list[Fault] = []
    for folder in classes:
        normal, anomalous, masks = folder_parts(folder)
        kinds = [anomalous, *list_folders(anomalous)] if anomalous else []
        images = {kind: list_images(kind) for kind in kinds if list_images(kind)}
        normals = list_images(normal) if normal else []
        pairings: list[Pairing] = []
        paired: dict[Path, Path] = {}
        together: list[Path] = []  # anomalous images whose masks lie directly in masks/
        for kind, members in images.items():
            own = masks / kind.name if masks else None
            if own and own.is_dir():
                pairings.append(pair(members, list_masks(own)))
                paired |= pairings[-1].masks
            else:
                together += members
        if masks:
            loose = [m for m in list_masks(masks) if not any(m == masks / kind.name for kind in images)]
            first = pair(together, loose)
            # What fits no anomalous image may be the black mask of a normal one.
            second = pair(normals, first.masks_left)
            first.masks_left = second.masks_left
            pairings.append(first)
            paired |= first.masks | second.masks
        found = [_sample(i, 0, paired.get(i), "good", folder.name, "test", folder) for i in normals]
        for kind, members in images.items():
            name = "defect" if kind == anomalous else kind.name
            found += [_sample(i, 1, paired.get(i), name, folder.name, "test", folder) for i in members]
        samples += found
        faults += _class_faults(folder, found, pairings)
    return samples, faults


def read_flat(root: Path) -> Read:
    """Every image in `root` and below it, without labels."""
    images = natural(path for path in root.rglob("*") if is_image_name(path.name) and path.is_file())
    return [_sample(image, None, None, "", root.resolve().name, "test", root) for image in images], []


def mvtec_classes(root: Path) -> list[Path]:
    """`root` itself if it is one class folder, else its subfolders that are; empty if it is no mvtec layout."""
    candidates = [root] if _has(root, "test") else list_folders(root)
    return [folder for folder in candidates if _has(folder, "test")]


def folder_classes(root: Path) -> list[Path]:
    """The same for the layout `folders`."""
    candidates = [root] if any(folder_parts(root)[:2]) else list_folders(root)
    return [folder for folder in candidates if any(folder_parts(folder)[:2])]


def folder_parts(folder: Path) -> tuple[Path | None, Path | None, Path | None]:
    """(normal, anomalous, masks) folders of a class of the layout `folders`, None where there is none."""
    masks = _subfolder(folder, MASK_NAMES)
    anomalous = _subfolder(folder, ANOMALOUS_NAMES) or (_subfolder(folder, ("images",)) if masks else None)
    return _subfolder(folder, ("normal", *sorted(NORMAL_NAMES))), anomalous, masks


def _class_faults(folder: Path, found: list[Sample], pairings: list[Pairing]) -> list[Fault]:
    faults = [
        Fault("ambiguous_mask", image, f"another image is also called '{image.stem}'")
        for pairing in pairings
        for image in pairing.ambiguous
    ]
    if not any(sample.split == "test" for sample in found):
        faults.append(Fault("empty_class", folder, "no image found in it"))
    without_any = not any(pairing.masks or pairing.masks_left or pairing.ambiguous for pairing in pairings)
    if not without_any:
        for pairing in pairings:
            faults += leftover_faults(pairing.images_left, pairing.masks_left)
    return faults


def _forgive(pairing: Pairing) -> Pairing:
    """Normal images need no mask."""
    return Pairing(pairing.masks, [], pairing.masks_left, pairing.ambiguous)


def _sample(
    image: Path,
    label: Literal[0, 1] | None,
    mask: Path | None,
    kind: str,
    class_name: str,
    split: str,
    root: Path,
) -> Sample:
    part: Split = "train" if split == "train" else "test"
    return Sample(image, label, mask, kind, class_name, part, image.relative_to(root).as_posix())


def _label(kind: str) -> Literal[0, 1]:
    return 0 if kind.casefold() in NORMAL_NAMES else 1


def _subfolder(folder: Path, names: tuple[str, ...]) -> Path | None:
    """The first of `names` that exists, compared without case on every file system."""
    found = {sub.name.casefold(): sub for sub in list_folders(folder)}
    return next((found[name] for name in names if name in found), None)


def _has(folder: Path, name: str) -> bool:
    # Exact case even where the file system ignores it: DAGM's raw "Test" is another layout.
    return any(sub.name == name for sub in list_folders(folder))
