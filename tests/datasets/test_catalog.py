"""The catalogue's facts, its check of a folder, and the preparation of downloads (made in miniature)."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.model_selection import train_test_split

from anomalens.datasets.catalog import catalog, describe, differences, find, keys_of, list_rows
from anomalens.datasets.layouts import LAYOUTS, Dataset, open_dataset, read_mask
from anomalens.datasets.prepare import cut_in_thirds, held_out, prepare
from anomalens.errors import ConfigError, InputError

PAPERS = ["mvtec", "visa", "mpdd", "btad", "ksdd", "dagm", "dtd", "headct", "brainmri", "br35h", "covid19"]
PAPERS += ["isic", "colondb", "clinicdb", "kvasir", "endo", "tn3k"]


def picture(path: Path, size: tuple[int, int] = (6, 4), marked: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((size[1], size[0]), np.uint8)
    pixels[0, 0] = 255 if marked else 0
    Image.fromarray(pixels).save(path)


# ---------------------------------------------------------------- facts


def test_holds_the_seventeen_of_the_papers_and_elpv() -> None:
    assert list(catalog()) == [*PAPERS, "elpv"]
    counts = {key: len(b.classes) for key, b in catalog().items()}
    assert (counts["mvtec"], counts["visa"], counts["dagm"], counts["dtd"]) == (15, 12, 10, 12)
    assert (counts["mpdd"], counts["btad"], counts["elpv"]) == (6, 3, 2)


@pytest.mark.parametrize(
    ("name", "classes", "keys"),
    [
        ("VisA_20220922", ["candle"], ("visa",)),
        ("my pcbs", ["pcb1", "PCB2", "pcb3"], ("my pcbs", "visa")),
        ("my pcbs", ["pcb1", "pcb2"], ("my pcbs",)),
        ("my pcbs", ["pcb1", "pcb2", "pcb3", "relay"], ("my pcbs",)),
        ("MVTec AD", ["bottle", "metal nut", "wood"], ("mvtec",)),
    ],
)
def test_a_set_is_known_by_its_name_and_by_its_classes(name: str, classes: list[str], keys: tuple[str, ...]) -> None:
    assert keys_of(Dataset(name, "folders", Path(), dict.fromkeys(classes, ()))) == keys


def test_every_entry_is_complete_and_consistent() -> None:
    for b in catalog().values():
        assert b.title, b.key
        assert b.source, b.key
        assert b.licence, b.key
        assert b.unpacks, b.key
        assert b.layout in LAYOUTS
        assert len(set(b.classes)) == len(b.classes) > 0
        assert all(c.source and c.anomalous > 0 for c in b.counts)
        if b.task == "pixel":
            assert all(c.normal == 0 for c in b.counts), b.key
        elif b.counts:
            assert all(c.normal > 0 for c in b.counts), b.key


def test_counts_are_stated_or_unknown_never_guessed() -> None:
    first = {key: (b.counts[0].normal, b.counts[0].anomalous) for key, b in catalog().items() if b.counts}
    assert first["mvtec"] == (467, 1258)
    assert first["visa"] == (962, 1200)
    assert first["dagm"] == (6996, 1054)
    assert first["tn3k"] == (0, 614)
    assert {key for key, b in catalog().items() if not b.counts} == {"covid19", "kvasir", "endo"}
    assert [c.verified for c in find("ksdd").counts] == [True, False]


def test_names_are_found_in_any_spelling() -> None:
    assert find("MVTec-AD").key == "mvtec"
    assert find("SDD").key == "ksdd"
    assert find("Brain_MRI").key == "brainmri"
    assert find("CVC-ColonDB").key == "colondb"
    with pytest.raises(ConfigError, match=r"'imagenet' is not in the catalogue.*mvtec"):
        find("imagenet")


def test_no_spelling_means_two_sets() -> None:
    names = [name for b in catalog().values() for name in {b.key, b.title, *b.aliases}]
    assert all(find(name) for name in names)
    owners: dict[str, str] = {}
    for b in catalog().values():
        for name in {n.casefold().replace("-", "").replace("_", "").replace(" ", "") for n in (b.key, *b.aliases)}:
            assert owners.setdefault(name, b.key) == b.key


def test_rows_and_description_are_plain_text() -> None:
    rows = list_rows()
    assert len(rows) == 18
    assert all(isinstance(value, str) and value for row in rows for value in row.values())
    assert next(row for row in rows if row["key"] == "kvasir")["test normal/anomalous"] == "not known"
    assert "(unverified)" in next(row for row in rows if row["key"] == "ksdd")["test normal/anomalous"]
    text = describe("ksdd")
    assert "181 normal + 74 anomalous" in text
    assert "CC BY-NC-SA" in text
    assert "(Google Drive id): 13UidsM1taqEAVV_JJTBiCV1D3KUBpmpj" in text


# ---------------------------------------------------------------- differences


def btad(root: Path) -> Path:
    for name in ("01", "02", "03"):
        picture(root / name / "test" / "ok" / "0.png")
        picture(root / name / "test" / "ko" / "1.png")
        picture(root / name / "ground_truth" / "ko" / "1.png", marked=True)
    return root


def test_differences_in_counts_and_classes(tmp_path: Path) -> None:
    assert differences("btad", open_dataset(btad(tmp_path))) == (
        "test images normal/anomalous: found 3/3, stated 451/290 (AdaCLIP, table of data sets); is the copy complete?",
    )
    (tmp_path / "03").rename(tmp_path / "04")
    assert differences("btad", open_dataset(tmp_path))[:2] == (
        "classes missing: 03; unpack them beside the others",
        "classes not in BTAD: 04; move them elsewhere",
    )


def test_no_difference_when_all_is_there(tmp_path: Path) -> None:
    for number in range(3):
        picture(tmp_path / "images" / f"{number}.png")
        picture(tmp_path / "masks" / f"{number}.png", marked=True)
    dataset = open_dataset(prepare("kvasir", tmp_path), strict=True, deep=True)
    assert differences("kvasir", dataset) == ()


def test_differences_say_what_the_task_lacks(tmp_path: Path) -> None:
    for number in range(100):
        picture(tmp_path / "c" / "test" / "bad" / f"{number}.png")
    messages = "\n".join(differences("headct", open_dataset(tmp_path)))
    assert "one kind is absent" in messages
    assert "found 0/100" in messages
    picture(tmp_path / "d" / "test" / "bad" / "0.png")
    messages = "\n".join(differences("isic", open_dataset(tmp_path)))
    assert "expected one class, found 2: c, d" in messages
    assert "no mask found" in messages


# ---------------------------------------------------------------- prepare


@pytest.mark.parametrize("length", [3, 4, 5, 1260, 1261])
def test_thirds_cover_the_image_once(length: int) -> None:
    rows = [row for start, stop in cut_in_thirds(length) for row in range(start, stop)]
    assert rows == list(range(length))


@pytest.mark.parametrize("count", [1, 2, 4, 7, 1143])
def test_held_out_is_scikit_learns_split(count: int) -> None:
    mine = held_out(count, 0.25, 42)
    if count > 1:  # scikit-learn refuses to split a single item
        assert mine == set(train_test_split(range(count), test_size=0.25, random_state=42)[1])
    assert len(mine) == -(-count // 4)


def ksdd(root: Path) -> Path:
    for folder in ("kos01", "kos02"):
        for part in range(2):
            picture(root / folder / f"Part{part}.jpg", (5, 10))
            label = np.zeros((10, 5), np.uint8)
            if (folder, part) == ("kos02", 1):
                label[4, 2] = 255  # in the middle third only
            Image.fromarray(label).save(root / folder / f"Part{part}_label.bmp")
    return root


def test_ksdd_is_cut_split_and_readable(tmp_path: Path) -> None:
    spec = prepare("ksdd", ksdd(tmp_path / "raw"), tmp_path / "done")
    dataset = open_dataset(spec, strict=True, deep=True)
    (counts,) = dataset.counts().values()
    assert (counts.normal, counts.anomalous, counts.masks) == (3, 1, 1)  # 11 normal parts, ceil(11 / 4) of them
    assert sum(1 for _ in dataset.samples("train")) == 8
    (defect,) = (s for s in dataset.samples() if s.label == 1)
    assert defect.image.name == "kos02_Part1_1.png"
    assert defect.mask is not None
    mask = read_mask(defect.mask)
    assert mask.shape == (3, 5)
    assert np.argwhere(mask).tolist() == [[1, 2]]
    before = {s.id for s in dataset.samples()}
    prepare("ksdd", tmp_path / "raw", tmp_path / "done")
    assert {s.id for s in open_dataset(spec).samples()} == before


def test_ksdd_refuses_incomplete_sources(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs a target folder"):
        prepare("ksdd", tmp_path)
    with pytest.raises(InputError, match="expected kosNN/PartM"):
        prepare("ksdd", tmp_path, tmp_path / "out")
    root = ksdd(tmp_path / "raw")
    (root / "kos01" / "Part1_label.bmp").unlink()
    with pytest.raises(InputError, match=r"label Part1_label\.bmp is missing"):
        prepare("ksdd", root, tmp_path / "out")
    picture(root / "kos01" / "Part1_label.bmp", (5, 9))
    with pytest.raises(InputError, match="size differs"):
        prepare("ksdd", root, tmp_path / "out")


def test_dagm_labels_become_masks(tmp_path: Path) -> None:
    for number in range(1, 11):
        for split in ("Train", "Test"):
            folder = tmp_path / f"Class{number}" / split
            picture(folder / "0001.PNG")
            picture(folder / "0002.PNG")
            picture(folder / "Label" / "0002_label.PNG", marked=True)
            (folder / "Label" / "Labels.txt").write_text("1\n")
    spec = prepare("dagm", tmp_path)
    assert spec == f"meta:{tmp_path}"
    dataset = open_dataset(spec, strict=True, deep=True)
    assert list(dataset.classes) == list(find("dagm").classes)
    assert {(c.normal, c.anomalous, c.masks) for c in dataset.counts().values()} == {(1, 1, 1)}
    assert open_dataset(tmp_path).layout == "meta"


def test_dagm_with_a_class_missing(tmp_path: Path) -> None:
    picture(tmp_path / "Class1" / "Train" / "0001.PNG")
    with pytest.raises(InputError, match=r"Class2.*no image found"):
        prepare("dagm", tmp_path)


@pytest.mark.parametrize(
    ("key", "images", "masks", "ending"),
    [
        ("colondb", "images", "masks", ""),
        ("tn3k", "test-image", "test-mask", ""),
        ("isic", "ISBI2016_ISIC_Part1_Test_Data", "ISBI2016_ISIC_Part1_Test_GroundTruth", "_Segmentation"),
    ],
)
def test_images_with_masks_are_paired_by_name(tmp_path: Path, key: str, images: str, masks: str, ending: str) -> None:
    for number in (1, 2, 10):
        picture(tmp_path / images / f"{number}.jpg")
        picture(tmp_path / masks / f"{number}{ending}.png", marked=True)
    dataset = open_dataset(prepare(key, tmp_path), strict=True, deep=True)
    assert list(dataset.classes) == list(find(key).classes)
    assert [(s.image.stem, s.mask and s.mask.stem) for s in dataset.samples()] == [
        (str(n), f"{n}{ending}") for n in (1, 2, 10)
    ]


def test_images_masks_elsewhere(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected images/ \+ masks/ or"):
        prepare("kvasir", tmp_path)


def test_no_and_yes_folders(tmp_path: Path) -> None:
    picture(tmp_path / "no" / "n.jpg")
    picture(tmp_path / "yes" / "y.jpg")
    picture(tmp_path / "pred" / "p.jpg")  # Br35H holds unlabelled images too
    (counts,) = open_dataset(prepare("br35h", tmp_path), strict=True).counts().values()
    assert (counts.normal, counts.anomalous, counts.masks) == (1, 1, 0)
    (tmp_path / "no" / "n.jpg").unlink()
    (tmp_path / "no").rmdir()
    with pytest.raises(InputError, match="no/ and yes/"):
        prepare("brainmri", tmp_path, force=True)


def test_covid_lung_masks_are_not_defects(tmp_path: Path) -> None:
    for name in ("Normal", "COVID", "Viral Pneumonia"):
        picture(tmp_path / name / "images" / f"{name}-1.png")
        picture(tmp_path / name / "masks" / f"{name}-1.png", marked=True)
    dataset = open_dataset(prepare("covid19", tmp_path), strict=True)
    assert {s.kind for s in dataset.samples()} == {"good", "COVID", "Viral Pneumonia"}
    assert all(s.mask is None for s in dataset.samples())


def test_headct_table(tmp_path: Path) -> None:
    for number in range(3):
        picture(tmp_path / "head_ct" / f"{number:03d}.png")
    (tmp_path / "labels.csv").write_text("id, hemorrhage\n0, 1\n1,0\n2,0\n")
    dataset = open_dataset(prepare("headct", tmp_path), strict=True)
    assert [(s.image.stem, s.label) for s in dataset.samples()] == [("000", 1), ("001", 0), ("002", 0)]
    (tmp_path / "labels.csv").write_text("id, hemorrhage\n7,0\n")
    with pytest.raises(InputError, match=r"line 2: image 007\.png is missing"):
        prepare("headct", tmp_path, force=True)
    (tmp_path / "labels.csv").write_text("id, hemorrhage\nx,0\n")
    with pytest.raises(InputError, match="expected 'id, 0 or 1'"):
        prepare("headct", tmp_path, force=True)
    (tmp_path / "labels.csv").unlink()
    with pytest.raises(InputError, match=r"labels\.csv: not found"):
        prepare("headct", tmp_path, force=True)


def test_an_existing_meta_is_kept_unless_forced(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "1.png")
    picture(tmp_path / "masks" / "1.png", marked=True)
    (tmp_path / "meta.json").write_text("{}")
    prepare("endo", tmp_path)
    assert (tmp_path / "meta.json").read_text() == "{}"
    prepare("endo", tmp_path, force=True)
    assert json.loads((tmp_path / "meta.json").read_text())["test"]["colon"][0]["anomaly"] == 1


def test_sets_that_need_no_preparation(tmp_path: Path) -> None:
    assert prepare("mvtec", tmp_path) == f"mvtec:{tmp_path}"
    assert prepare("visa", tmp_path) == f"visa:{tmp_path}"


def test_prepare_errors_name_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no such folder; get CVC-ClinicDB from https://figshare"):
        prepare("clinicdb", tmp_path / "absent")
    with pytest.raises(ConfigError, match="prepared where it lies"):
        prepare("clinicdb", tmp_path, tmp_path / "out")
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    with pytest.raises(InputError, match="no image found"):
        prepare("clinicdb", tmp_path)
