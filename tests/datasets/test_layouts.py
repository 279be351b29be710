"""Layout detection, pairing by name, masks of every encoding, and every fault, on small made folders."""

import json
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet as parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from anomalens.datasets.layouts import (
    FAULT_KINDS,
    Dataset,
    deep_check,
    detect,
    open_dataset,
    parse_spec,
    read_mask,
    read_truth,
)
from anomalens.datasets.layouts.pairing import in_natural_order, pair
from anomalens.errors import ConfigError, InputError, MissingExtraError

SIZE = (8, 6)  # width, height


def image(path: Path, size: tuple[int, int] = SIZE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (90, 120, 150)).save(path)
    return path


def mask(path: Path, size: tuple[int, int] = SIZE, marked: bool = True) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((size[1], size[0]), np.uint8)
    pixels[1:3, 1:4] = 255 if marked else 0
    Image.fromarray(pixels).save(path)
    return path


def mvtec_class(folder: Path) -> Path:
    for name in ("000.png", "001.png"):
        image(folder / "train" / "good" / name)
        image(folder / "test" / "good" / name)
        image(folder / "test" / "crack" / name)
        mask(folder / "ground_truth" / "crack" / name.replace(".png", "_mask.png"))
    image(folder / "test" / "hole" / "000.png")
    mask(folder / "ground_truth" / "hole" / "000_mask.png")
    return folder


def kinds(dataset: Dataset) -> list[str]:
    return [fault.kind for fault in dataset.faults]


# ---------------------------------------------------------------- naming and finding the layout


def test_spec_is_split_and_a_drive_letter_is_no_layout() -> None:
    assert parse_spec("mvtec:/data/x") == ("mvtec", Path("/data/x"))
    assert parse_spec("VisA:x") == ("visa", Path("x"))
    assert parse_spec("C:\\data\\x") == (None, Path("C:\\data\\x"))
    assert parse_spec("mvtec:C:\\data") == ("mvtec", Path("C:\\data"))
    assert parse_spec(Path("mvtec:x")) == (None, Path("mvtec:x"))
    assert parse_spec("plain/folder") == (None, Path("plain/folder"))


def test_unknown_layout_is_named_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"'mvtek' is not a layout.*mvtec.*manifest"):
        parse_spec("mvtek:/data")
    with pytest.raises(ConfigError, match="write mvtec:PATH"):
        parse_spec("mvtec:")


def test_existing_path_with_a_colon_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    image(tmp_path / "run:1" / "a.png")
    assert open_dataset("run:1").layout == "flat"


def test_detects_each_layout_and_says_why(tmp_path: Path) -> None:
    mvtec_class(tmp_path / "mvtec" / "nut")
    image(tmp_path / "folders" / "normal" / "a.png")
    image(tmp_path / "flat" / "a.png")
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta" / "meta.json").write_text("{}")
    (tmp_path / "visa" / "split_csv").mkdir(parents=True)
    (tmp_path / "visa" / "split_csv" / "1cls.csv").write_text("object,split,label,image,mask\n")
    (tmp_path / "manifest").mkdir()
    (tmp_path / "manifest" / "manifest.jsonl").write_text("{}")
    for layout in ("mvtec", "folders", "flat", "meta", "visa", "manifest"):
        detected, reason = detect(tmp_path / layout)
        assert detected == layout
        assert reason
    assert detect(tmp_path / "meta" / "meta.json")[0] == "meta"
    assert detect(tmp_path / "visa" / "split_csv" / "1cls.csv")[0] == "visa"
    assert detect(tmp_path / "manifest" / "manifest.jsonl")[0] == "manifest"


def test_nothing_recognised_lists_what_was_expected_and_found(tmp_path: Path) -> None:
    (tmp_path / "Train").mkdir()
    with pytest.raises(InputError, match=r"no known layout.*found: Train"):
        open_dataset(tmp_path)
    with pytest.raises(InputError, match="no such file or folder"):
        open_dataset(tmp_path / "absent")
    text = tmp_path / "notes.txt"
    text.write_text("x")
    with pytest.raises(InputError, match="no data set"):
        open_dataset(text)


@pytest.mark.parametrize("layout", ["mvtec", "visa", "meta", "folders", "flat", "manifest"])
def test_named_layout_that_is_not_there(tmp_path: Path, layout: str) -> None:
    with pytest.raises(InputError, match=r"expected .*; no such"):
        open_dataset(f"{layout}:{tmp_path / 'absent'}")
    with pytest.raises(InputError, match=r"expected|no usable image"):
        open_dataset(f"{layout}:{tmp_path}")


# ---------------------------------------------------------------- mvtec


def test_mvtec_reads_classes_kinds_and_masks(tmp_path: Path) -> None:
    mvtec_class(tmp_path / "nut10")
    mvtec_class(tmp_path / "nut2")
    dataset = open_dataset(f"mvtec:{tmp_path}", strict=True, deep=True)
    assert list(dataset.classes) == ["nut2", "nut10"]
    assert dataset.notes == ()
    test = [s for s in dataset.classes["nut2"] if s.split == "test"]
    assert [(s.kind, s.label) for s in test] == [
        ("crack", 1), ("crack", 1), ("good", 0), ("good", 0), ("hole", 1),
    ]  # fmt: skip
    assert test[0].id == "nut2/test/crack/000.png"
    assert test[0].mask == tmp_path / "nut2/ground_truth/crack/000_mask.png"
    counts = dataset.counts()["nut2"]
    assert (counts.normal, counts.anomalous, counts.masks) == (2, 3, 3)
    assert len(list(dataset.samples("train"))) == 4
    assert len({s.id for split in ("train", "test") for s in dataset.samples(split)}) == 14


def test_mvtec_path_may_be_one_class(tmp_path: Path) -> None:
    mvtec_class(tmp_path / "nut")
    dataset = open_dataset(f"mvtec:{tmp_path / 'nut'}")
    assert list(dataset.classes) == ["nut"]
    assert any("one class folder" in note for note in dataset.notes)


def test_mvtec_without_masks_is_image_level_only(tmp_path: Path) -> None:
    image(tmp_path / "c" / "test" / "ok" / "0.png")
    image(tmp_path / "c" / "test" / "ko" / "0.png")
    dataset = open_dataset(tmp_path, strict=True)
    counts = dataset.counts()["c"]
    assert (counts.normal, counts.anomalous, counts.masks) == (1, 1, 0)
    assert {s.kind for s in dataset.samples()} == {"good", "ko"}


def test_mvtec_without_normals_is_pixel_level_only(tmp_path: Path) -> None:
    image(tmp_path / "c" / "test" / "crack" / "0.png")
    mask(tmp_path / "c" / "ground_truth" / "crack" / "0.png")
    counts = open_dataset(tmp_path).counts()["c"]
    assert (counts.normal, counts.anomalous, counts.masks) == (0, 1, 1)


def test_mvtec_images_directly_in_test_are_unlabelled(tmp_path: Path) -> None:
    image(tmp_path / "c" / "test" / "0.png")
    (sample,) = open_dataset(tmp_path).samples()
    assert sample.label is None
    assert sample.kind == ""


def test_hidden_and_foreign_files_are_no_images(tmp_path: Path) -> None:
    image(tmp_path / "c" / "test" / "good" / "0.png")
    (tmp_path / "c" / "test" / "good" / "._0.png").write_bytes(b"junk")
    (tmp_path / "c" / "test" / "good" / "Thumbs.db").write_bytes(b"junk")
    (tmp_path / "c" / "test" / ".cache").mkdir()
    assert len(list(open_dataset(tmp_path, strict=True).samples())) == 1


def test_several_masks_of_one_image_in_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "c"
    image(folder / "test" / "hole" / "000.png")
    first, second = np.zeros((6, 8), np.uint8), np.zeros((6, 8), np.uint8)
    first[0, 0], second[5, 7] = 255, 255
    (folder / "ground_truth" / "hole" / "000").mkdir(parents=True)
    Image.fromarray(first).save(folder / "ground_truth/hole/000/0.png")
    Image.fromarray(second).save(folder / "ground_truth/hole/000/1.png")
    (sample,) = open_dataset(tmp_path, strict=True, deep=True).samples()
    truth = read_truth(sample, (6, 8))
    assert truth is not None
    assert np.argwhere(truth).tolist() == [[0, 0], [5, 7]]


# ---------------------------------------------------------------- the other layouts


def test_visa_table(tmp_path: Path) -> None:
    image(tmp_path / "candle/Data/Images/Normal/0.JPG")
    image(tmp_path / "candle/Data/Images/Anomaly/000.JPG")
    mask(tmp_path / "candle/Data/Masks/Anomaly/000.png")
    (tmp_path / "split_csv").mkdir()
    (tmp_path / "split_csv" / "1cls.csv").write_text(
        "object,split,label,image,mask\n"
        "candle,train,normal,candle/Data/Images/Normal/0.JPG,\n"
        "candle,test,anomaly,candle/Data/Images/Anomaly/000.JPG,candle/Data/Masks/Anomaly/000.png\n"
    )
    for spec in (f"visa:{tmp_path}", str(tmp_path / "split_csv" / "1cls.csv")):
        dataset = open_dataset(spec, strict=True, deep=True)
        assert dataset.layout == "visa"
        assert dataset.name == tmp_path.name
        assert [(s.split, s.label, s.mask is not None) for s in dataset.classes["candle"]] == [
            ("train", 0, False),
            ("test", 1, True),
        ]


def test_visa_table_with_other_columns(tmp_path: Path) -> None:
    (tmp_path / "split_csv").mkdir()
    (tmp_path / "split_csv" / "1cls.csv").write_text("image,label\nx.png,normal\n")
    with pytest.raises(InputError, match=r"expected columns object, split.*found image, label"):
        open_dataset(tmp_path)


def meta_item(image_path: str, mask_path: str | None, anomaly: int, kind: str = "crack") -> dict[str, object]:
    return {
        "img_path": image_path, "mask_path": mask_path, "cls_name": "nut", "specie_name": kind, "anomaly": anomaly,
    }  # fmt: skip


def test_meta_keeps_its_order_and_understands_windows_paths(tmp_path: Path) -> None:
    image(tmp_path / "nut/test/good/0.png")
    image(tmp_path / "nut/test/crack/10.png")
    image(tmp_path / "nut/test/crack/9.png")
    mask(tmp_path / "nut/ground_truth/crack/10_mask.png")
    mask(tmp_path / "nut/ground_truth/crack/9_mask.png")
    items = [
        meta_item("nut\\test\\crack\\10.png", "nut\\ground_truth\\crack\\10_mask.png", 1),
        meta_item("nut/test/good/0.png", "", 0, "good"),
        meta_item("nut/test/crack/9.png", "nut/ground_truth/crack/9_mask.png", 1),
    ]
    (tmp_path / "meta.json").write_text(json.dumps({"Train": {}, "Test": {"nut": items}}))
    dataset = open_dataset(tmp_path, strict=True)
    assert dataset.layout == "meta"
    assert [s.image.name for s in dataset.classes["nut"]] == ["10.png", "0.png", "9.png"]
    assert next(s.id for s in dataset.samples()) == "nut/test/crack/10.png"
    assert [s.label for s in dataset.samples()] == [1, 0, 1]


@pytest.mark.parametrize("text", ["[1, 2]", '{"test": {"a": [{"img": 1}]}}', "not json", '{"test": [1]}'])
def test_meta_of_another_shape(tmp_path: Path, text: str) -> None:
    (tmp_path / "meta.json").write_text(text)
    with pytest.raises(InputError, match=r"img_path, mask_path.*regenerate"):
        open_dataset(tmp_path)


def test_folders_with_kinds_and_masks_together_or_apart(tmp_path: Path) -> None:
    image(tmp_path / "normal" / "n.png")
    image(tmp_path / "anomalous" / "a.png")
    image(tmp_path / "anomalous" / "dent" / "0.png")
    image(tmp_path / "anomalous" / "burn" / "b7.png")
    mask(tmp_path / "masks" / "dent" / "0_mask.png")
    mask(tmp_path / "masks" / "a.png")
    mask(tmp_path / "masks" / "b7_mask.png")
    mask(tmp_path / "masks" / "n.png", marked=False)
    dataset = open_dataset(tmp_path, strict=True, deep=True)
    assert dataset.layout == "folders"
    kinds_and_masks = {s.image.name: (s.kind, s.label, s.mask and s.mask.name) for s in dataset.samples()}
    assert kinds_and_masks == {
        "n.png": ("good", 0, "n.png"),
        "a.png": ("defect", 1, "a.png"),
        "b7.png": ("burn", 1, "b7_mask.png"),
        "0.png": ("dent", 1, "0_mask.png"),
    }


def test_folders_of_several_classes_and_images_with_masks(tmp_path: Path) -> None:
    image(tmp_path / "one" / "good" / "n.png")
    image(tmp_path / "one" / "bad" / "a.png")
    image(tmp_path / "two" / "images" / "a.png")
    mask(tmp_path / "two" / "masks" / "a.png")
    dataset = open_dataset(f"folders:{tmp_path}", strict=True)
    totals = {name: (counts.normal, counts.anomalous, counts.masks) for name, counts in dataset.counts().items()}
    assert totals == {"one": (1, 1, 0), "two": (0, 1, 1)}


def test_flat_folder_is_read_to_the_bottom_without_labels(tmp_path: Path) -> None:
    for name in ("img10.png", "img2.png", "sub/img1.png"):
        image(tmp_path / name)
    samples = list(open_dataset(f"flat:{tmp_path}").samples())
    assert [s.id for s in samples] == ["img2.png", "img10.png", "sub/img1.png"]
    assert {s.label for s in samples} == {None}


ROWS = [
    {"image": "a10.png", "label": 1, "mask": "a10_mask.png", "class": "x", "split": "test", "kind": "cut"},
    {"image": "a2.png", "label": 0, "mask": None, "class": "x", "split": "test", "kind": None},
    {"image": "a1.png", "label": 0, "mask": None, "class": "x", "split": "train", "kind": None},
]


def write_manifest(root: Path, suffix: str) -> Path:
    for row in ROWS:
        image(root / str(row["image"]))
    mask(root / "a10_mask.png")
    path = root / f"list{suffix}"
    if suffix == ".jsonl":
        path.write_text("\n".join(json.dumps(row) for row in ROWS) + "\n\n", encoding="utf-8")
    elif suffix == ".parquet":
        parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
    else:
        separator = {".csv": ";", ".tsv": "\t"}[suffix]
        lines = [separator.join(ROWS[0])]
        lines += [separator.join("" if row[key] is None else str(row[key]) for key in ROWS[0]) for row in ROWS]
        path.write_text("\ufeff" + "\n".join(lines), encoding="utf-8")
    return path


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_manifest_formats_agree(tmp_path: Path, suffix: str) -> None:
    dataset = open_dataset(f"manifest:{write_manifest(tmp_path, suffix)}", strict=True, deep=True)
    assert dataset.name == "list"
    assert [(s.id, s.label, s.kind, s.split) for s in dataset.classes["x"]] == [
        ("a1.png", 0, "good", "train"),
        ("a2.png", 0, "good", "test"),
        ("a10.png", 1, "cut", "test"),
    ]


def test_manifest_with_the_image_column_alone(tmp_path: Path) -> None:
    image(tmp_path / "deep" / "a.png")
    (tmp_path / "manifest.csv").write_text("image\ndeep/a.png\n")
    dataset = open_dataset(tmp_path, strict=True)
    (sample,) = dataset.samples()
    assert (sample.label, sample.class_name, sample.split) == (None, tmp_path.name, "test")


def test_manifest_row_with_a_mask_but_no_label_is_anomalous(tmp_path: Path) -> None:
    image(tmp_path / "a.png")
    mask(tmp_path / "m.png")
    (tmp_path / "manifest.csv").write_text("image,mask\na.png,m.png\n")
    (sample,) = open_dataset(tmp_path).samples()
    assert sample.label == 1


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("m.csv", b"picture,label\na.png,0\n", "column 'image'.*found picture, label"),
        ("m.csv", b"", "found nothing"),
        ("m.csv", b"image\n\xff\xfe\n", "UTF-8"),
        ("m.csv", b"image\n" + b"x" * 200_000 + b"\n", "line 2"),
        ("m.jsonl", b'{"image": "a.png"}\n{oops\n', "line 2: not JSON"),
        ("m.jsonl", b"[1]\n", "expected an object"),
        ("m.parquet", b"no parquet", "Parquet"),
        ("m.xlsx", b"", "manifest ending in"),
    ],
)
def test_broken_manifest_names_the_place(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        open_dataset(f"manifest:{tmp_path / name}")


def test_parquet_without_its_package_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "m.parquet").write_bytes(b"")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    with pytest.raises(MissingExtraError, match=r"anomalens\[data\]"):
        open_dataset(f"manifest:{tmp_path / 'm.parquet'}")


# ---------------------------------------------------------------- faults


def test_sound_data_has_no_fault(tmp_path: Path) -> None:
    mvtec_class(tmp_path / "nut")
    assert open_dataset(tmp_path, strict=True, deep=True).faults == ()


def test_missing_mask_keeps_the_image_at_image_level(tmp_path: Path) -> None:
    folder = mvtec_class(tmp_path / "nut")
    (folder / "ground_truth/crack/001_mask.png").unlink()
    dataset = open_dataset(tmp_path)
    assert kinds(dataset) == ["missing_mask"]
    assert dataset.faults[0].path.name == "001.png"
    assert dataset.counts()["nut"].anomalous == 3
    assert dataset.counts()["nut"].masks == 2
    sample = next(s for s in dataset.samples() if s.id == "nut/test/crack/001.png")
    assert read_truth(sample, (6, 8)) is None


def test_missing_mask_folder_of_one_kind(tmp_path: Path) -> None:
    folder = mvtec_class(tmp_path / "nut")
    (folder / "ground_truth/hole/000_mask.png").unlink()
    (folder / "ground_truth/hole").rmdir()
    assert kinds(open_dataset(tmp_path)) == ["missing_mask"]


def test_orphan_masks(tmp_path: Path) -> None:
    folder = mvtec_class(tmp_path / "nut")
    mask(folder / "ground_truth/crack/017_mask.png")
    mask(folder / "ground_truth/dust/000_mask.png")
    dataset = open_dataset(tmp_path)
    assert kinds(dataset) == ["orphan_mask", "orphan_mask"]
    assert {fault.path.parent.name for fault in dataset.faults} == {"crack", "dust"}


@pytest.mark.parametrize("name", ["1_mask.png", "mask_001.png", "Mask-0001.png", "001 masks.png"])
def test_wrongly_named_mask_is_reported_not_guessed(tmp_path: Path, name: str) -> None:
    folder = mvtec_class(tmp_path / "nut")
    (folder / "ground_truth/crack/001_mask.png").rename(folder / "ground_truth/crack" / name)
    dataset = open_dataset(tmp_path)
    if name == "001 masks.png":  # an accepted spelling
        assert dataset.faults == ()
        return
    (fault,) = dataset.faults
    assert fault.kind == "wrongly_named_mask"
    assert "rename it to '001_mask.png'" in fault.detail
    assert dataset.counts()["nut"].masks == 2


def test_pairs_are_never_made_by_order(tmp_path: Path) -> None:
    folder = tmp_path / "nut"
    for name in ("a.png", "b.png"):
        image(folder / "test" / "cut" / name)
    for name in ("b_mask.png", "c_mask.png"):
        mask(folder / "ground_truth" / "cut" / name)
    dataset = open_dataset(tmp_path)
    assert kinds(dataset) == ["missing_mask", "orphan_mask"]
    assert {s.image.name: s.mask and s.mask.name for s in dataset.samples()} == {
        "a.png": None,
        "b.png": "b_mask.png",
    }


def test_images_that_share_a_stem_are_ambiguous(tmp_path: Path) -> None:
    image(tmp_path / "c/test/cut/0.png")
    image(tmp_path / "c/test/cut/0.jpg")
    mask(tmp_path / "c/ground_truth/cut/0_mask.png")
    dataset = open_dataset(tmp_path)
    assert kinds(dataset) == ["ambiguous_mask", "ambiguous_mask"]
    assert dataset.counts()["c"].masks == 0


def test_mask_of_another_size(tmp_path: Path) -> None:
    folder = mvtec_class(tmp_path / "nut")
    mask(folder / "ground_truth/crack/001_mask.png", size=(6, 8))
    dataset = open_dataset(tmp_path)
    (fault,) = dataset.faults
    assert fault.kind == "mask_size"
    assert "mask is 6 x 8, image '001.png' is 8 x 6" in fault.detail
    assert dataset.counts()["nut"].masks == 2


def test_size_is_compared_as_displayed(tmp_path: Path) -> None:
    """A camera's JPEG stored lying with the EXIF note "turn me" has the size of its upright mask."""
    path = tmp_path / "c/test/cut/0.jpg"
    path.parent.mkdir(parents=True)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (8, 6)).save(path, exif=exif)
    mask(tmp_path / "c/ground_truth/cut/0_mask.png", size=(6, 8))
    assert open_dataset(tmp_path).faults == ()


def test_headers_are_enough(tmp_path: Path) -> None:
    """A PNG cut off right behind its header has a known size: reading it whole is the detector's business."""
    path = image(tmp_path / "c/test/good/0.png", size=(300, 200))
    path.write_bytes(path.read_bytes()[:60])
    assert open_dataset(tmp_path, strict=True).counts()["c"].normal == 1


def test_unreadable_images_and_masks(tmp_path: Path) -> None:
    folder = mvtec_class(tmp_path / "nut")
    (folder / "test/crack/000.png").write_bytes(b"GIF? no")
    (folder / "test/good/000.png").write_bytes(b"")
    (folder / "ground_truth/crack/001_mask.png").write_text("mask")
    dataset = open_dataset(tmp_path)
    assert sorted(kinds(dataset)) == ["unreadable_image", "unreadable_image", "unreadable_mask"]
    counts = dataset.counts()["nut"]
    assert (counts.normal, counts.anomalous, counts.masks) == (1, 2, 1)


def test_empty_class(tmp_path: Path) -> None:
    mvtec_class(tmp_path / "nut")
    (tmp_path / "bolt" / "test" / "good").mkdir(parents=True)
    dataset = open_dataset(tmp_path)
    assert kinds(dataset) == ["empty_class"]
    assert list(dataset.classes) == ["nut"]


def test_contradictions_are_found_when_masks_are_read(tmp_path: Path) -> None:
    folder = mvtec_class(tmp_path / "nut")
    mask(folder / "ground_truth/good/000_mask.png")
    mask(folder / "ground_truth/good/001_mask.png", marked=False)
    mask(folder / "ground_truth/crack/000_mask.png", marked=False)
    dataset = open_dataset(tmp_path)
    assert dataset.faults == ()
    assert sorted(fault.kind for fault in deep_check(dataset)) == ["contradiction", "empty_mask"]
    assert sorted(kinds(open_dataset(tmp_path, deep=True))) == ["contradiction", "empty_mask"]


def test_deep_check_finds_masks_whose_pixels_are_damaged(tmp_path: Path) -> None:
    folder = mvtec_class(tmp_path / "nut")
    path = mask(folder / "ground_truth/crack/000_mask.png", size=SIZE)
    path.write_bytes(path.read_bytes()[:45])
    dataset = open_dataset(tmp_path)
    assert dataset.faults == ()
    assert [fault.kind for fault in deep_check(dataset)] == ["unreadable_mask"]


def test_table_faults(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "n.png", "c.png"):
        image(tmp_path / name)
    mask(tmp_path / "a_mask.png")
    mask(tmp_path / "n_mask.png")
    (tmp_path / "manifest.csv").write_text(
        "image,label,mask,split\n"
        "a.png,1,a_mask.png,test\n"
        "./a.png,1,a_mask.png,test\n"  # twice
        "b.png,1,,test\n"  # no mask
        "c.png,1,gone.png,test\n"  # mask not on disk
        "n.png,0,n_mask.png,test\n"  # normal, with a mask that marks something
        "ghost.png,0,,test\n"  # no such image
        "n.png,perhaps,,test\n"
        "n.png,0,,validation\n"
    )
    dataset = open_dataset(tmp_path, deep=True)
    assert sorted(kinds(dataset)) == [
        "bad_label", "bad_split", "contradiction", "duplicate_image", "missing_image", "missing_mask", "missing_mask",
    ]  # fmt: skip
    assert [s.id for s in dataset.samples()] == ["a.png", "b.png", "c.png", "n.png"]


def test_masks_swapped_by_sorted_order_are_reported(tmp_path: Path) -> None:
    items = []
    for name, given_mask in (("1", "10"), ("10", "2"), ("2", "1")):  # text order against number order
        image(tmp_path / f"{name}.png")
        mask(tmp_path / f"{given_mask}_mask.png")
        items.append(meta_item(f"{name}.png", f"{given_mask}_mask.png", 1))
    (tmp_path / "meta.json").write_text(json.dumps({"test": {"nut": items}}))
    dataset = open_dataset(tmp_path)
    assert kinds(dataset) == ["swapped_mask"] * 3
    assert dataset.counts()["nut"].masks == 3


def test_strict_raises_with_counts_and_five_examples(tmp_path: Path) -> None:
    folder = mvtec_class(tmp_path / "nut")
    for number in range(20, 27):
        mask(folder / f"ground_truth/crack/{number:03d}_mask.png")
    summary = open_dataset(tmp_path).summary()
    assert "7 x orphan_mask" in summary
    assert "and 2 more" in summary
    assert summary.count("no image of this name") == 5
    assert "2 normal, 3 anomalous (3 with mask)" in summary
    with pytest.raises(InputError, match=r"has faults\n7 x orphan_mask"):
        open_dataset(tmp_path, strict=True)


def test_no_usable_image_is_an_error_with_the_faults(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"junk")
    with pytest.raises(InputError, match=r"no usable image found\n1 x unreadable_image"):
        open_dataset(tmp_path)


def test_every_fault_kind_says_what_to_do() -> None:
    assert all(";" in meaning for meaning in FAULT_KINDS.values())


# ---------------------------------------------------------------- masks of any encoding

SHAPES = np.array([[0, 0, 1, 1], [0, 0, 0, 2], [3, 0, 0, 0]])
MARKED = SHAPES > 0


def palette_mask(colours: list[int]) -> Image.Image:
    picture = Image.fromarray(SHAPES.astype(np.uint8))
    picture = Image.frombytes("P", picture.size, picture.tobytes())
    picture.putpalette(colours)
    return picture


def encodings() -> dict[str, Image.Image]:
    grey = MARKED.astype(np.uint8)
    rgb = np.zeros((3, 4, 3), np.uint8)
    rgb[MARKED] = (0, 0, 7)
    rgba = np.full((3, 4, 4), 255, np.uint8)
    rgba[..., 3] = grey * 255
    drawn = np.zeros((3, 4, 4), np.uint8)
    drawn[..., 3] = grey * 255
    opaque = np.dstack([grey * 255, grey * 0, grey * 0, np.full_like(grey, 255)])
    return {
        "255": Image.fromarray(grey * 255),
        "1": Image.fromarray(grey),
        "one value per defect": Image.fromarray(SHAPES.astype(np.uint8)),
        "1 bit": Image.fromarray(grey * 255).convert("1"),
        "16 bit": Image.fromarray(SHAPES.astype(np.uint16) * 256),
        "32 bit": Image.fromarray(SHAPES.astype(np.int32) * 70000),
        "rgb": Image.fromarray(rgb),
        "white with alpha": Image.fromarray(rgba),
        "black with alpha": Image.fromarray(drawn),
        "colour, opaque": Image.fromarray(opaque),
        "grey with alpha": Image.fromarray(opaque).convert("LA"),
        "palette": palette_mask([0, 0, 0, 200, 0, 0, 0, 200, 0, 0, 0, 200]),
        "palette without meaning": palette_mask([0, 0, 0] * 4),
    }


@pytest.mark.parametrize("name", list(encodings()))
def test_mask_encodings_agree(tmp_path: Path, name: str) -> None:
    path = tmp_path / ("m.tif" if name == "32 bit" else "m.png")
    encodings()[name].save(path)
    marked = read_mask(path)
    assert marked.dtype == np.bool_
    np.testing.assert_array_equal(marked, MARKED)


def test_palette_counts_by_colour_not_by_index(tmp_path: Path) -> None:
    """An optimised palette may put white first: index 0 is then the defect."""
    picture = Image.frombytes("P", (4, 3), (~MARKED).astype(np.uint8).tobytes())
    picture.putpalette([255, 255, 255, 0, 0, 0])
    picture.save(tmp_path / "m.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png"), MARKED)


def test_empty_masks_stay_empty(tmp_path: Path) -> None:
    for mode in ("1", "L", "P", "RGB", "RGBA", "LA", "I;16"):
        Image.new(mode, (4, 3)).save(tmp_path / "m.png")
        assert not read_mask(tmp_path / "m.png").any(), mode
    Image.new("RGBA", (4, 3), (0, 0, 0, 255)).save(tmp_path / "m.png")
    assert not read_mask(tmp_path / "m.png").any()


def test_jpeg_noise_marks_nothing(tmp_path: Path) -> None:
    truth = np.zeros((64, 64), bool)
    truth[19:41, 10:37] = True
    Image.fromarray(truth.astype(np.uint8) * 255).save(tmp_path / "m.jpg", quality=60)
    noisy = np.asarray(Image.open(tmp_path / "m.jpg"))
    assert ((noisy > 0) & ~truth).any()  # what "not black" would mark by mistake
    np.testing.assert_array_equal(read_mask(tmp_path / "m.jpg"), truth)


def test_resize_is_height_then_width(tmp_path: Path) -> None:
    mask(tmp_path / "m.png", size=(8, 6))
    marked = read_mask(tmp_path / "m.png", (12, 16))
    assert marked.shape == (12, 16)
    assert marked[3:5, 3:7].all()
    assert not marked[8:].any()


def test_unreadable_mask_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "m.png").write_bytes(b"junk")
    with pytest.raises(InputError, match=r"m\.png: cannot be read as a mask"):
        read_mask(tmp_path / "m.png")
    (tmp_path / "several").mkdir()
    with pytest.raises(InputError, match="found none"):
        read_mask(tmp_path / "several")
    mask(tmp_path / "several" / "0.png")
    mask(tmp_path / "several" / "1.png", size=(3, 3))
    with pytest.raises(InputError, match="masks of one size"):
        read_mask(tmp_path / "several")


# ---------------------------------------------------------------- order and pairing, in general


def test_natural_order() -> None:
    names = ["img10", "img2", "Img1", "img02", "b", "7"]
    assert [p.name for p in in_natural_order(map(Path, names))] == ["7", "b", "Img1", "img02", "img2", "img10"]


@given(st.sets(st.integers(0, 300), max_size=12), st.sets(st.integers(0, 300), max_size=12), st.randoms())
def test_pairing_depends_on_names_alone(numbers: set[int], masked: set[int], random: object) -> None:
    images = [Path(f"{n:03d}.jpg") for n in numbers]
    masks = [Path(f"{n:03d}_mask.png") for n in masked]
    random.shuffle(images)  # type: ignore[attr-defined]
    random.shuffle(masks)  # type: ignore[attr-defined]
    result = pair(images, masks)
    assert {(i.stem, m.stem) for i, m in result.masks.items()} == {
        (f"{n:03d}", f"{n:03d}_mask") for n in numbers & masked
    }
    assert {i.stem for i in result.images_left} == {f"{n:03d}" for n in numbers - masked}
    assert {m.stem for m in result.masks_left} == {f"{n:03d}_mask" for n in masked - numbers}


def test_endings_do_not_steal_masks() -> None:
    images = [Path("a_mask.png"), Path("a.png")]
    masks = [Path("gt/a_mask.png"), Path("gt/a_mask_mask.png")]
    assert pair(images, masks).masks == {images[0]: masks[1], images[1]: masks[0]}
    swapped_case = pair([Path("Teil-É.PNG")], [Path("teil-e\u0301_MASK.bmp")])
    assert len(swapped_case.masks) == 1


def test_real_sets_have_the_counts_their_notes_state(shared: Path) -> None:
    totals = {
        name: (counts.normal, counts.anomalous, counts.masks)
        for spec in ("mvtec", "cookie", "crackforest")
        for name, counts in open_dataset(shared / "data" / spec, strict=True).counts().items()
    }
    assert totals == {
        "bottle": (20, 8, 8),
        "leather": (8, 11, 11),
        "transistor": (20, 8, 8),
        "cookie": (31, 32, 32),
        "road": (0, 118, 118),
    }
