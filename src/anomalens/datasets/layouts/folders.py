"""Read the layouts that speak through folder names: mvtec, folders, flat.

Each reader gives samples and the faults of pairing; headers are checked afterwards, for all layouts alike.
"""

from dataclasses import replace
from pathlib import Path

from anomalens.datasets.layouts.dataset import Fault, Label, Sample, Split
from anomalens.datasets.layouts.pairing import (
    Pairing,
    folders_in,
    images_in,
    in_natural_order,
    leftover_faults,
    masks_in,
    pair,
)
from anomalens.images.sources import is_image_name

# Names of folders with normal images: MVTec "good", BTAD "ok", the medical sets "no" and "normal".
NORMAL_NAMES = frozenset({"good", "ok", "normal", "no"})
# Of several, the first counts; so for masks.
ANOMALOUS_NAMES = ("anomalous", "abnormal", "anomaly", "anomalies", "defective", "defect", "defects", "bad", "ko")
MASK_NAMES = ("ground_truth", "masks", "mask", "gt")

Reading = tuple[list[Sample], list[Fault]]
"""What a reader of a layout returns."""


def read_mvtec(classes: list[Path]) -> Reading:
    """Read `<class>/{train,test}/<kind>/*` with masks in `<class>/ground_truth/<kind>/`.

    Images directly in `test/` are unlabelled. A class without any mask is image-level only, which is no fault.
    """
    samples: list[Sample] = []
    faults: list[Fault] = []
    splits: tuple[Split, ...] = ("train", "test")
    for folder in classes:
        masks = _subfolder(folder, MASK_NAMES)
        root = folder.parent
        paired_kinds: set[str] = set()
        members: list[Sample] = []
        pairings: list[Pairing] = []
        for split in splits:
            members += [_sample(root, folder, image, None, None, "", split) for image in images_in(folder / split)]
            for kind in folders_in(folder / split):
                images = images_in(kind)
                normal = kind.name.casefold() in NORMAL_NAMES
                # Train and test may use the same file names, so only one of them can own the masks: test.
                owned = masks is not None and not (split == "train" and (folder / "test" / kind.name).is_dir())
                pairing = pair(images, masks_in(masks / kind.name) if masks and owned else [])
                if owned:
                    paired_kinds.add(kind.name)
                    # Normal images need no mask.
                    pairings.append(replace(pairing, images_left=[]) if normal else pairing)
                label: Label = 0 if normal else 1
                name = "good" if normal else kind.name
                members += [
                    _sample(root, folder, image, label, pairing.masks.get(image), name, split) for image in images
                ]
        if masks is not None:
            unused = [kind for kind in folders_in(masks) if kind.name not in paired_kinds]
            pairings += [Pairing(masks_left=masks_in(kind)) for kind in unused]
        samples += members
        faults += _class_faults(folder, members, pairings)
    return samples, faults


def read_folders(classes: list[Path]) -> Reading:
    """Read `normal/` and `anomalous/`, with masks beside them in `masks/` or `ground_truth/`; all is test data.

    `anomalous/` may hold one subfolder per kind of defect; masks then lie in equal subfolders or all together.
    Without `normal/` the set is pixel-level only; `images/` with `masks/` is such a set too.
    """
    samples: list[Sample] = []
    faults: list[Fault] = []
    for folder in classes:
        normal, anomalous, masks = folder_parts(folder)
        kinds = [anomalous, *folders_in(anomalous)] if anomalous else []
        images = {kind: images_in(kind) for kind in kinds if images_in(kind)}
        normals = images_in(normal) if normal else []
        pairings: list[Pairing] = []
        paired: dict[Path, Path] = {}
        # Anomalous images whose masks lie directly in the folder of masks.
        together: list[Path] = []
        for kind, members in images.items():
            own = masks / kind.name if masks else None
            if own and own.is_dir():
                pairings.append(pair(members, masks_in(own)))
                paired |= pairings[-1].masks
            else:
                together += members
        if masks:
            loose = [mask for mask in masks_in(masks) if not any(mask == masks / kind.name for kind in images)]
            first = pair(together, loose)
            # What fits no anomalous image may be the black mask of a normal one.
            second = pair(normals, first.masks_left)
            pairings.append(replace(first, masks_left=second.masks_left))
            paired |= first.masks | second.masks
        groups: list[tuple[list[Path], Label, str]] = [(normals, 0, "good")]
        groups += [(members, 1, "defect" if kind == anomalous else kind.name) for kind, members in images.items()]
        labelled = [
            _sample(folder, folder, image, label, paired.get(image), name, "test")
            for members, label, name in groups
            for image in members
        ]
        samples += labelled
        faults += _class_faults(folder, labelled, pairings)
    return samples, faults


def read_flat(root: Path) -> Reading:
    """Read every image in `root` and below it, without labels."""
    images = in_natural_order(path for path in root.rglob("*") if is_image_name(path.name) and path.is_file())
    return [_sample(root, root.resolve(), image, None, None, "", "test") for image in images], []


def mvtec_classes(root: Path) -> list[Path]:
    """Return `root` itself if it is one class folder, else its subfolders that are; none if it is no mvtec layout."""
    candidates = [root] if _has(root, "test") else folders_in(root)
    return [folder for folder in candidates if _has(folder, "test")]


def folder_classes(root: Path) -> list[Path]:
    """Return `root` itself if it is one class of the layout `folders`, else its subfolders that are."""
    candidates = [root] if any(folder_parts(root)[:2]) else folders_in(root)
    return [folder for folder in candidates if any(folder_parts(folder)[:2])]


def folder_parts(folder: Path) -> tuple[Path | None, Path | None, Path | None]:
    """Return the (normal, anomalous, masks) folders of a class of the layout `folders`, None where there is none."""
    masks = _subfolder(folder, MASK_NAMES)
    anomalous = _subfolder(folder, ANOMALOUS_NAMES) or (_subfolder(folder, ("images",)) if masks else None)
    return _subfolder(folder, ("normal", *sorted(NORMAL_NAMES))), anomalous, masks


def _class_faults(folder: Path, members: list[Sample], pairings: list[Pairing]) -> list[Fault]:
    faults = [
        Fault("ambiguous_mask", image, f"another image is also called '{image.stem}'")
        for pairing in pairings
        for image in pairing.ambiguous
    ]
    if not any(sample.split == "test" for sample in members):
        faults.append(Fault("empty_class", folder, "no image found in it"))
    # A class without any mask is image-level only: then no mask is missing.
    if any(pairing.masks or pairing.masks_left or pairing.ambiguous for pairing in pairings):
        for pairing in pairings:
            faults += leftover_faults(pairing.images_left, pairing.masks_left)
    return faults


def _sample(
    root: Path, class_folder: Path, image: Path, label: Label | None, mask: Path | None, kind: str, split: Split
) -> Sample:
    return Sample(image, label, mask, kind, class_folder.name, split, image.relative_to(root).as_posix())


def _subfolder(folder: Path, names: tuple[str, ...]) -> Path | None:
    """Return the first of `names` that exists, compared without case on every file system."""
    present = {path.name.casefold(): path for path in folders_in(folder)}
    return next((present[name] for name in names if name in present), None)


def _has(folder: Path, name: str) -> bool:
    # Exact case even where the file system ignores it: DAGM's raw "Test" is another layout.
    return any(path.name == name for path in folders_in(folder))
