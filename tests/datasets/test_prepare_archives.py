"""Every set of the catalogue from its archive as published, made in miniature, and through `anomalens data prepare`."""

import http.server
import io
import tarfile
import threading
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from anomalens.datasets.catalog import catalog, find
from anomalens.datasets.layouts import open_dataset
from anomalens.datasets.prepare import prepare_archives
from anomalens.errors import ConfigError, InputError
from commands import Command, runner

File = tuple[str, bytes]
"""Name and content of a file in an archive."""


def picture(marked: bool = False, size: tuple[int, int] = (6, 4), kind: str = "PNG") -> bytes:
    pixels = np.zeros((size[1], size[0]), np.uint8)
    pixels[0, 0] = 255 if marked else 0
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, kind)
    return content.getvalue()


def mvtec_files(
    root: str, classes: Iterable[str], good: str = "good", bad: str = "crack", end: str = "_mask.png"
) -> Iterable[File]:
    for name in classes:
        yield f"{root}{name}/train/{good}/000.png", picture()
        yield f"{root}{name}/test/{good}/000.png", picture()
        yield f"{root}{name}/test/{bad}/001.png", picture()
        yield f"{root}{name}/ground_truth/{bad}/001{end}", picture(marked=True)


def visa_files(root: str) -> Iterable[File]:
    rows = ["object,split,label,image,mask"]
    for name in find("visa").classes:
        for label, kind in (("normal", "Normal"), ("anomaly", "Anomaly")):
            image, mask = f"{name}/Data/Images/{kind}/000.JPG", f"{name}/Data/Masks/{kind}/000.png"
            yield root + image, picture(kind="JPEG")
            if label == "anomaly":
                yield root + mask, picture(marked=True)
            rows.append(f"{name},test,{label},{image},{mask if label == 'anomaly' else ''}")
    yield f"{root}split_csv/1cls.csv", "\n".join(rows).encode()


def ksdd_files(root: str) -> Iterable[File]:
    for number in range(1, 5):
        for part in range(2):
            yield f"{root}kos{number:02d}/Part{part}.jpg", picture(size=(6, 9), kind="JPEG")
            label = picture(marked=number == 1, size=(6, 9), kind="BMP")
            yield f"{root}kos{number:02d}/Part{part}_label.bmp", label


def dagm_files(root: str, name: str) -> Iterable[File]:
    for split in ("Train", "Test"):
        yield f"{root}{name}/{split}/0001.PNG", picture()
        yield f"{root}{name}/{split}/0002.PNG", picture()
        yield f"{root}{name}/{split}/Label/0002_label.PNG", picture(marked=True)
        yield f"{root}{name}/{split}/Label/Labels.txt", b"1\n"


def pairs(images: str, masks: str, ending: str = "") -> Iterable[File]:
    for number in (1, 2):
        yield f"{images}/{number}.png", picture()
        yield f"{masks}/{number}{ending}.png", picture(marked=True)


def folders(*names: str) -> Iterable[File]:
    return [(f"{name}/{number}.png", picture()) for name in names for number in (1, 2)]


POLYPS = [
    *pairs("PolypDataset/TestDataset/CVC-ClinicDB/images", "PolypDataset/TestDataset/CVC-ClinicDB/masks"),
    *pairs("PolypDataset/TestDataset/CVC-ColonDB/images", "PolypDataset/TestDataset/CVC-ColonDB/masks"),
    *pairs("PolypDataset/TestDataset/Kvasir/images", "PolypDataset/TestDataset/Kvasir/masks"),
    *pairs("PolypDataset/TrainDataset/images", "PolypDataset/TrainDataset/masks"),
]


class Published(NamedTuple):
    """Hold the archives that a set is published in, by the names of what is in them, and its test images."""

    archives: list[list[File]]
    normal: int
    anomalous: int


def of(*archives: Iterable[File], normal: int, anomalous: int) -> Published:
    return Published(list(map(list, archives)), normal, anomalous)


COVID = [
    (f"COVID-19_Radiography_Dataset/{name}/{part}/1.png", picture(part == "masks"))
    for name in ("COVID", "Lung_Opacity", "Normal", "Viral Pneumonia")
    for part in ("images", "masks")
]
TN3K = "Thyroid Dataset/tn3k"
BRAINS = ("labels.csv", b"id, hemorrhage\n0,1\n1,0\n2,0\n")
ENDO, ISIC = "EndoTect_2020_Segmentation_Test_Dataset", "ISBI2016_ISIC_Part1_Test"
PUBLISHED = {
    "mvtec": of([("license.txt", b"CC"), *mvtec_files("", find("mvtec").classes)], normal=15, anomalous=15),
    "visa": of(visa_files("VisA_20220922/"), normal=12, anomalous=12),
    "mpdd": of(mvtec_files("MPDD/", find("mpdd").classes), normal=6, anomalous=6),
    "btad": of(
        mvtec_files("BTech_Dataset_transformed/", ("01", "02", "03"), "ok", "ko", ".png"), normal=3, anomalous=3
    ),
    # 8 images cut in three: the first row of two of them has a defect; a quarter of the 22 normal thirds is test data.
    "ksdd": of(ksdd_files("KolektorSDD/"), normal=6, anomalous=2),
    "dagm": of(*(dagm_files("", name) for name in find("dagm").classes), normal=10, anomalous=10),
    "dtd": of(mvtec_files("DTD-Synthetic/", find("dtd").classes), normal=12, anomalous=12),
    "headct": of(
        [BRAINS, *((f"head_ct/head_ct/{number:03d}.png", picture()) for number in range(3))], normal=2, anomalous=1
    ),
    "brainmri": of(folders("brain_tumor_dataset/no", "brain_tumor_dataset/yes", "no", "yes"), normal=2, anomalous=2),
    "br35h": of(folders("no", "pred", "yes", "Br35H-Mask-RCNN/TRAIN"), normal=2, anomalous=2),
    "covid19": of([("COVID-19_Radiography_Dataset/Normal.metadata.xlsx", b"x"), *COVID], normal=1, anomalous=3),
    "isic": of(
        [(f"{ISIC}_Data/{number}.png", picture()) for number in (1, 2)],
        [(f"{ISIC}_GroundTruth/{number}_Segmentation.png", picture(marked=True)) for number in (1, 2)],
        normal=0,
        anomalous=2,
    ),
    "colondb": of(POLYPS, normal=0, anomalous=2),
    "clinicdb": of(POLYPS, normal=0, anomalous=2),
    "kvasir": of(POLYPS, normal=0, anomalous=2),
    "endo": of(pairs(f"{ENDO}/images", f"{ENDO}/masks"), normal=0, anomalous=2),
    "tn3k": of(
        [*pairs(f"{TN3K}/test-image", f"{TN3K}/test-mask"), *pairs(f"{TN3K}/trainval-image", f"{TN3K}/trainval-mask")],
        normal=0,
        anomalous=2,
    ),
}


def write(folder: Path, key: str) -> list[Path]:
    """Write the archives of a set and return their paths."""
    paths = []
    for number, files in enumerate(PUBLISHED[key].archives):
        paths.append(folder / f"{key}-{number}.zip")
        with zipfile.ZipFile(paths[-1], "w") as container:
            for name, content in files:
                container.writestr(name, content)
    return paths


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    return runner(capsys, monkeypatch)


def test_every_set_is_here() -> None:
    assert [*PUBLISHED, "elpv"] == list(catalog())


@pytest.mark.parametrize("key", PUBLISHED)
def test_a_set_is_prepared_from_its_archives(tmp_path: Path, key: str) -> None:
    spec = prepare_archives(key, write(tmp_path, key), tmp_path / "sets" / key)
    assert spec == f"{find(key).layout}:{tmp_path / 'sets' / key}"
    dataset = open_dataset(spec, strict=True, deep=True)
    counts = dataset.counts().values()
    normal, anomalous = PUBLISHED[key].normal, PUBLISHED[key].anomalous
    assert (sum(each.normal for each in counts), sum(each.anomalous for each in counts)) == (normal, anomalous)
    if len(find(key).classes) > 1:
        assert set(dataset.classes) == set(find(key).classes)
    if find(key).task != "image":
        assert all(each.masks == each.anomalous for each in counts)
    assert [path.name for path in (tmp_path / "sets").iterdir()] == [key]


def test_counts_are_compared_with_the_catalogue(run: Command, tmp_path: Path) -> None:
    (archive,) = write(tmp_path, "kvasir")
    ran = run("data", "prepare", "kvasir", archive, "--out", tmp_path / "kvasir")
    assert ran.code == 0, ran.err
    assert ran.out == f"meta:{tmp_path / 'kvasir'}\n"
    assert "no source states how many images it has" in ran.err
    (archive,) = write(tmp_path, "btad")
    ran = run("data", "prepare", "btad", archive, "--out", tmp_path / "btad")
    assert (ran.code, ran.out) == (1, f"mvtec:{tmp_path / 'btad'}\n")
    assert "differs: test images normal/anomalous: found 3/3, stated 451/290" in ran.err


def test_an_archive_of_something_else_is_said(run: Command, tmp_path: Path) -> None:
    (polyps,) = write(tmp_path, "kvasir")
    ran = run("data", "prepare", "endo", polyps, "--out", tmp_path / "out")
    assert ran.code == 2
    assert "Endo (EndoTect 2020) is not in the archive; it holds TrainDataset, CVC-ClinicDB, CVC-ColonDB" in ran.err
    ran = run("data", "prepare", "visa", polyps, "--out", tmp_path / "out")
    assert "VisA is not in the archive; it unpacks as split_csv/1cls.csv" in ran.err
    with tarfile.open(tmp_path / "bottle.tar.xz", "w:xz") as tape:
        tape.add(Path(__file__), "bottle/test/good/000.png")
    ran = run("data", "prepare", "mvtec", tmp_path / "bottle.tar.xz", "--out", tmp_path / "out")
    assert "MVTec AD is not in the archive; it holds bottle; it unpacks as <class>" in ran.err
    assert not (tmp_path / "out").exists()


def test_nothing_is_written_over(run: Command, tmp_path: Path) -> None:
    (archive,) = write(tmp_path, "kvasir")
    (tmp_path / "out").mkdir()
    prepare_archives("kvasir", [archive], tmp_path / "out")
    with pytest.raises(ConfigError, match="is in use; choose a new folder"):
        prepare_archives("kvasir", [archive], tmp_path / "out")
    with pytest.raises(ConfigError, match="comes as a Python package"):
        prepare_archives("elpv", [archive], tmp_path / "new")
    (tmp_path / "a.tar").write_bytes(b"nothing")
    with pytest.raises(InputError, match="damaged archive"):
        prepare_archives("mvtec", [tmp_path / "a.tar"], tmp_path / "new")
    assert run("data", "prepare", "kvasir", archive).code == 2
    assert "either archives" in run("data", "prepare", "kvasir", archive, tmp_path).err


def test_address_and_licence_are_printed_and_nothing_is_fetched_unasked(run: Command, tmp_path: Path) -> None:
    ran = run("data", "prepare", "visa", "--out", tmp_path / "visa")
    assert ran.code == 2
    assert "VisA: https://amazon-visual-anomaly" in ran.err
    assert "licence: CC BY 4.0" in ran.err
    assert "with --accept-licence" in ran.err
    assert not (tmp_path / "visa").exists()
    by_hand = run("data", "prepare", "mvtec", "--accept-licence", "--out", tmp_path / "mvtec")
    assert by_hand.code == 2
    assert "MVTec AD has no address that can be fetched; get it by hand: https://www.mvtec.com" in by_hand.err


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """Serve a folder on 127.0.0.1; give its address and the folder."""
    folder = tmp_path / "served"
    folder.mkdir()
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    host = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=host.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{host.server_port}", folder
    host.shutdown()
    host.server_close()


def test_an_archive_is_fetched_where_its_licence_is_accepted(
    run: Command, tmp_path: Path, server: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    address, folder = server
    (archive,) = write(folder, "btad")
    known = dict(catalog())
    known["btad"] = replace(known["btad"], archive=f"{address}/{archive.name}")
    monkeypatch.setattr("anomalens.datasets.catalog.catalog", lambda: known)
    out = tmp_path / "sets" / "btad"
    assert run("data", "prepare", "btad", "--out", out).code == 2
    assert not out.parent.exists()
    ran = run("data", "prepare", "btad", "--accept-licence", "--out", out)
    assert (ran.code, ran.out) == (1, f"mvtec:{out}\n"), ran.err  # a miniature has fewer images than are stated
    assert "licence: not stated; see source, research only" in ran.err
    assert (out.parent / archive.name).read_bytes() == archive.read_bytes()
    archive.unlink()
    (out.parent / archive.name).unlink()
    gone = run("data", "prepare", "btad", "--accept-licence", "--out", tmp_path / "again")
    assert gone.code == 2
    assert "the archive of BTAD: cannot be fetched from http://127.0.0.1" in gone.err
