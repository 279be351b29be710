"""Read the layouts that speak through folder names: mvtec, mvtec3d, folders.

Each reader gives samples and the faults of pairing; headers are checked afterwards, for all layouts alike.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from anomalens.datasets.layouts.dataset import Fault, Label, Sample, Split
from anomalens.datasets.layouts.pairing import (
    Pairing,
    folders_in,
    images_in,
    leftover_faults,
    masks_in,
    pair,
)
from anomalens.names import name_text

# Names of folders with normal images. MVTec "good", BTAD "ok", the medical sets "no" and "normal".
KNOWN_NORMAL = ("normal", "good", "no", "ok")
# What others call them, in lower case and without spaces, dashes and the like.
NORMAL_NAMES = frozenset({
    *KNOWN_NORMAL, "0", "accepted", "anomalyfree", "clean", "defectfree", "faultfree", "faultless", "fine", "flawless",
    "healthy", "intact", "negative", "noanomaly", "nodefect", "nodefects", "nofault", "nonanomalous", "nondefective",
    "notdefective", "okay", "pass", "passed", "perfect", "sound", "undamaged",
})  # fmt: skip
# Of several, the first counts; so for masks.
ANOMALOUS_NAMES = ("anomalous", "abnormal", "anomaly", "anomalies", "defective", "defect", "defects", "bad", "ko")
# Names that are believed only beside a folder of normal images.
_PERHAPS_ANOMALOUS = ("1", "damaged", "fail", "failed", "faulty", "ng", "nok", "positive", "rejected", "unhealthy")
MASK_NAMES = ("ground_truth", "masks", "mask", "gt")
# Where MVTec 3D keeps its colour images.
RGB = "rgb"

Reading = tuple[list[Sample], list[Fault]]
"""What a reader of a layout returns."""


def is_normal_name(name: str, further: Iterable[str] = ()) -> bool:
    """Return whether a folder or label called `name` says normal: by NORMAL_NAMES, or by what a user adds to them."""
    plain = plain_name(name)
    return plain in NORMAL_NAMES or plain in map(plain_name, further)


def plain_name(name: str) -> str:
    """Return a name in lower case without spaces, dashes and the like: "No-Defect" -> "nodefect"."""
    return re.sub(r"[\W_]+", "", name.casefold()) or name


def remarks_on_names(samples: Sequence[Sample]) -> list[str]:
    """Return lines of text on what the names of folders were taken for, where that is not plain from the papers' names.

    `samples` are of a layout whose kinds are folders' names, kept as they are called.
    """
    remarks = []
    test = [sample for sample in samples if sample.split == "test" and sample.label is not None]
    taken = {
        folder
        for sample in test
        if sample.label == 0 and (folder := _kind_folder(sample)).casefold() not in KNOWN_NORMAL
    }
    if taken:
        remarks.append(f"taken for normal images by the name of their folder: {_listed(taken)}")
    for name in dict.fromkeys(sample.class_name for sample in test):
        members = [sample for sample in test if sample.class_name == name]
        if all(sample.label == 1 for sample in members):
            kinds = _listed({sample.kind for sample in members})
            remarks.append(
                f"class '{name}' has no normal test images, all its folders count as defects ({kinds}); "
                "if one of them holds normal images, name it with --normal-name"
            )
    return remarks


def _kind_folder(sample: Sample) -> str:
    folder = sample.image.parent
    return (folder.parent if folder.name == RGB else folder).name


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in sorted(names))


def read_mvtec(classes: list[Path], normal_names: Sequence[str] = ()) -> Reading:
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
                normal = is_normal_name(kind.name, normal_names)
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


def read_folders(classes: list[Path], normal_names: Sequence[str] = ()) -> Reading:
    """Read `normal/` and `anomalous/`, with masks beside them in `masks/` or `ground_truth/`; all is test data.

    `anomalous/` may hold one subfolder per kind of defect; masks then lie in equal subfolders or all together. Where
    there is none, and the folder of normal images is one of `normal_names`, all other folders are kinds of defects.
    Without `normal/` the set is pixel-level only; `images/` with `masks/` is such a set too.
    """
    samples: list[Sample] = []
    faults: list[Fault] = []
    for folder in classes:
        normal, anomalous, masks = folder_parts(folder, normal_names)
        kinds = [anomalous, *folders_in(anomalous)] if anomalous else _other_kinds(folder, normal_names)
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


def read_mvtec3d(classes: list[Path], normal_names: Sequence[str] = ()) -> Reading:
    """Read `<class>/{train,test}/<kind>/rgb/*` with masks of the same names in `<kind>/gt/`; `validation` is not read.

    The depth images in `xyz/` are not looked at.
    """
    samples: list[Sample] = []
    faults: list[Fault] = []
    splits: tuple[Split, ...] = ("train", "test")
    for folder in classes:
        members: list[Sample] = []
        pairings: list[Pairing] = []
        for split in splits:
            for kind in folders_in(folder / split):
                images = images_in(kind / RGB)
                pairing = pair(images, masks_in(kind / "gt"))
                normal = is_normal_name(kind.name, normal_names)
                # Normal images need no mask.
                pairings.append(replace(pairing, images_left=[]) if normal else pairing)
                label: Label = 0 if normal else 1
                name = "good" if normal else kind.name
                members += [
                    _sample(folder.parent, folder, image, label, pairing.masks.get(image), name, split)
                    for image in images
                ]
        samples += members
        faults += _class_faults(folder, members, pairings)
    return samples, faults


def mvtec3d_classes(root: Path) -> list[Path]:
    """Return `root` itself if it is a class folder of MVTec 3D, else its subfolders that are."""
    return [folder for folder in mvtec_classes(root) if any(_has(kind, RGB) for kind in folders_in(folder / "test"))]


def unlabelled(root: Path, images: Sequence[Path]) -> list[Sample]:
    """Return images below `root` as samples without labels, all of one class."""
    return [_sample(root, root.resolve(), image, None, None, "", "test") for image in images]


def mvtec_classes(root: Path) -> list[Path]:
    """Return `root` itself if it is one class folder, else its subfolders that are; none if it is no mvtec layout."""
    candidates = [root] if _has(root, "test") else folders_in(root)
    return [folder for folder in candidates if _has(folder, "test")]


def folder_classes(root: Path, normal_names: Sequence[str] = ()) -> list[Path]:
    """Return `root` itself if it is one class of the layout `folders`, else its subfolders that are."""
    candidates = [root] if _is_folder_class(root, normal_names) else folders_in(root)
    return [folder for folder in candidates if _is_folder_class(folder, normal_names)]


def folder_parts(folder: Path, normal_names: Sequence[str] = ()) -> tuple[Path | None, Path | None, Path | None]:
    """Return the (normal, anomalous, masks) folders of a class of the layout `folders`, None where there is none."""
    masks = _subfolder(folder, MASK_NAMES)
    normal = _subfolder(folder, KNOWN_NORMAL) or next(
        (path for path in folders_in(folder) if is_normal_name(path.name, normal_names)), None
    )
    anomalous = _subfolder(folder, ANOMALOUS_NAMES) or (_subfolder(folder, ("images",)) if masks else None)
    if anomalous is None and normal is not None:
        anomalous = _subfolder(folder, _PERHAPS_ANOMALOUS)
    return normal, anomalous, masks


def unread_folders(folder: Path, normal_names: Sequence[str] = ()) -> list[Path]:
    """Return the folders of a class of the layout `folders` that hold images and are not read."""
    parts = (*folder_parts(folder, normal_names), *_other_kinds(folder, normal_names))
    return [path for path in folders_in(folder) if path not in parts and images_in(path)]


def _other_kinds(folder: Path, normal_names: Sequence[str]) -> list[Path]:
    """Return all folders but that of normal images and masks, where a user named the first and none says anomalous."""
    normal, anomalous, masks = folder_parts(folder, normal_names)
    if anomalous is not None or normal is None or not _is_named(normal, normal_names):
        return []
    return [path for path in folders_in(folder) if path not in (normal, masks)]


def _is_named(folder: Path, normal_names: Sequence[str]) -> bool:
    return plain_name(folder.name) in map(plain_name, normal_names)


def _is_folder_class(folder: Path, normal_names: Sequence[str]) -> bool:
    """Return whether the names of subfolders say that this is a class; some names are believed in pairs alone."""
    normal, anomalous, _ = folder_parts(folder, normal_names)
    if normal and anomalous:
        return True
    certain = normal is not None and (normal.name.casefold() in KNOWN_NORMAL or _is_named(normal, normal_names))
    return certain or anomalous is not None


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
    return Sample(image, label, mask, kind, class_folder.name, split, name_text(image.relative_to(root).as_posix()))


def _subfolder(folder: Path, names: tuple[str, ...]) -> Path | None:
    """Return the first of `names` that exists, compared without case on every file system."""
    present = {path.name.casefold(): path for path in folders_in(folder)}
    return next((present[name] for name in names if name in present), None)


def _has(folder: Path, name: str) -> bool:
    # Exact case even where the file system ignores it: DAGM's raw "Test" is another layout.
    return any(path.name == name for path in folders_in(folder))
