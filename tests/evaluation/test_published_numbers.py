"""The transcribed tables: spot values, printed averages, completeness, lookup, and a reader that refuses slips."""

from collections import Counter
from statistics import fmean
from typing import Any

import pytest

from anomalens.datasets.catalog import catalog
from anomalens.errors import ConfigError
from anomalens.evaluation.published_numbers import STATUSES, Published, parse, protocol_differences, published, rows

INDUSTRIAL = ("mvtec", "visa", "mpdd", "btad", "ksdd", "dagm", "dtd")
MEDICAL_IMAGE = ("headct", "brainmri", "br35h")
MEDICAL_PIXEL = ("isic", "colondb", "clinicdb", "tn3k")


def of(source: str, method: str | None = None) -> list[Published]:
    return [row for row in rows() if source in row.source and method in (None, row.method)]


@pytest.mark.parametrize(
    ("method", "dataset", "metric", "value", "status"),
    [
        ("winclip", "mvtec", "image_auroc", 91.8, "verified"),
        ("winclip", "visa", "aupro", 56.8, "verified"),
        ("anoclip+", "mvtec", "pixel_auroc", 90.6, "verified"),
        ("anoclip+", "mvtec", "aupro_200", 77.8, "verified"),
        ("anoclip+", "visa", "pixel_auroc", 91.4, "recalled"),
        ("anoclip", "mvtec", "image_auroc", 92.5, "verified"),
        ("aprilgan", "mvtec", "aupro_200", 44.0, "verified"),
        ("anomalyclip", "tn3k", "aupro_200", 50.4, "verified"),
        ("anomalyclip", "covid19", "image_ap", 58.7, "verified"),
        ("coop", "kvasir", "pixel_auroc", 44.1, "third-party"),
        ("adaclip", "dtd", "pixel_f1max", 71.6, "verified"),
        ("crane", "ksdd", "image_auroc", 97.8, "verified"),
        ("crane+", "clinicdb", "aupro_200", 74.5, "verified"),
        ("faprompt", "endo", "pixel_auroc", 85.9, "third-party"),
        ("edmprompt", "btad", "aupro_200", 77.9, "third-party"),
        ("visualad", "mvtec", "aupro_200", 87.5, "third-party"),
        ("maskclip", "visa", "aupro", 27.3, "recalled"),
    ],
)
def test_spot_values(method: str, dataset: str, metric: str, value: float, status: str) -> None:
    first, *_ = published(method, dataset, metric)
    assert first.value in {row.value for row in published(method, dataset, metric)}
    assert value in {row.value for row in published(method, dataset, metric) if row.status == status}
    assert first.status == min((r.status for r in published(method, dataset, metric)), key=STATUSES.index)


def test_per_class_values() -> None:
    assert published("winclip", "mvtec", "pixel_auroc", "metal_nut")[0].value == 61.0
    assert published("anomalyclip", "visa", "image_ap", "pcb3")[0].value == 69.4
    assert published("crane+", "mvtec", "aupro_200", "transistor")[0].value == 55.1
    assert published("crane+", "btad", "image_f1max", "03")[0].value == 89.5
    assert published("crane+", "dagm", "image_ap", "Class1")[0].value == 59.3
    assert published("crane+", "dtd", "pixel_f1max", "Mesh_114")[0].value == 68.1


def test_lookup_accepts_spellings_and_says_nothing_when_nothing_is_known() -> None:
    assert published("WinCLIP", "MVTec AD", "image_auroc") == published("winclip", "mvtec", "image_auroc")
    assert published("crane", "SDD", "image_auroc")[0].dataset == "ksdd"
    assert published("tokenclip", "mvtec", "image_auroc") == ()
    assert published("winclip", "mvtec", "image_auroc", "no such class") == ()


def test_lookup_is_ordered_by_trust() -> None:
    rows = published("aprilgan", "mvtec", "image_auroc")
    assert [row.value for row in rows][:1] == [86.1]
    assert [STATUSES.index(row.status) for row in rows] == sorted(STATUSES.index(row.status) for row in rows)
    third = [row.protocol.key for row in rows if row.status == "third-party"]
    assert third.index("cross") < third.index("quoted")


def test_every_row_has_source_protocol_status_and_a_percentage() -> None:
    assert len(rows()) > 1000
    for row in rows():
        assert row.source, row
        assert row.protocol.key, row
        assert row.protocol.backbone, row
        assert row.status in STATUSES, row
        assert 0 <= row.value <= 100, row


def test_no_number_is_transcribed_twice() -> None:
    keys = Counter((r.method, r.dataset, r.class_name, r.metric, r.source, r.protocol.key) for r in rows())
    assert [key for key, count in keys.items() if count > 1] == []


def test_data_sets_and_classes_are_those_of_the_catalogue() -> None:
    others = {row.dataset for row in rows()} - catalog().keys()
    assert others == {
        "aitex", "vand-2023", "mean-industrial", "mean-medical-image", "mean-medical-pixel", "mean-mrad",
        "mean-anomaly-onevision",
    }  # fmt: skip
    for row in rows():
        if row.class_name is not None:
            assert row.class_name in catalog()[row.dataset].classes, row
    complete = Counter((r.method, r.dataset, r.source, r.metric) for r in rows() if r.class_name is not None)
    assert all(count == len(catalog()[key[1]].classes) for key, count in complete.items())


@pytest.mark.parametrize(
    ("source", "method", "dataset"),
    [
        ("README of caoyunkang", "winclip", "mvtec"),
        ("README of caoyunkang", "winclip", "visa"),
        ("zero_shot/log.txt", "anomalyclip", "mvtec"),
        ("zero_shot/log.txt", "anomalyclip", "visa"),
        *(("commit 91e48d4", "crane+", name) for name in ("mvtec", "visa", "mpdd", "btad", "dagm", "dtd")),
    ],
)
def test_classes_average_to_the_printed_mean(source: str, method: str, dataset: str) -> None:
    per_class: dict[str, list[float]] = {}
    for row in of(source, method):
        if row.dataset == dataset and row.class_name is not None:
            per_class.setdefault(row.metric, []).append(row.value)
    assert per_class
    mean_source = "arXiv 2303.14814" if method == "winclip" else source
    means = {
        row.metric: row.value
        for row in of(mean_source, method)
        if row.dataset == dataset and row.class_name is None and row.protocol.shots == 0
    }
    for metric, values in per_class.items():
        # Half a unit of the last digit for the classes, and as much again for the mean.
        assert fmean(values) == pytest.approx(means[metric], abs=0.1), metric


def differing_averages(source: str, tolerance: float) -> set[tuple[str, str, str]]:
    differing = set()
    for name, sets in (
        ("mean-industrial", INDUSTRIAL),
        ("mean-medical-image", MEDICAL_IMAGE),
        ("mean-medical-pixel", MEDICAL_PIXEL),
    ):
        for row in of(source):
            if row.dataset != name or "(" in row.method:
                continue
            parts = [r.value for r in of(source, row.method) if r.dataset in sets and r.metric == row.metric]
            assert len(parts) == len(sets)
            if abs(fmean(parts) - row.value) > tolerance:
                differing.add((row.method, name, row.metric))
    return differing


def test_printed_averages_of_crane_agree_but_for_two() -> None:
    assert differing_averages("Crane, arXiv 2504.11055, Table 1", 0.11) == {
        ("aprilgan", "mean-industrial", "image_auroc"),
        ("anomalyclip", "mean-industrial", "image_f1max"),
    }


@pytest.mark.parametrize("source", ["Tables 1-2", "Tables 6-7"])
def test_printed_averages_of_adaclip(source: str) -> None:
    assert differing_averages(source, 0.11) == set()


def test_average_of_anomaly_onevision() -> None:
    row = of("Anomaly-OneVision", "anoclip+")
    mean = next(r.value for r in row if r.dataset == "mean-anomaly-onevision")
    assert fmean(r.value for r in row if not r.dataset.startswith("mean")) == pytest.approx(mean, abs=0.05)


def test_two_sources_of_one_table_agree() -> None:
    """AnomalyCLIP's numbers as Crane prints them are those AnomalyCLIP printed: a check on both transcriptions."""
    own = {(r.dataset, r.metric): r.value for r in of("tables in the README of zqhang", "anomalyclip")}
    quoted = {(r.dataset, r.metric): r.value for r in of("Table 1", "anomalyclip") if "Crane" in r.source}
    shared = own.keys() & quoted.keys()
    assert len(shared) == 42
    assert {key: (own[key], quoted[key]) for key in shared if own[key] != quoted[key]} == {}


def test_protocol_knows_what_a_target_was_trained_on() -> None:
    row = published("anomalyclip", "mvtec", "image_auroc")[0]
    assert row.protocol.trained_on("mvtec") == "visa"
    assert row.protocol.trained_on("isic") == "mvtec"
    assert published("winclip", "visa", "aupro")[0].protocol.trained_on("visa") == ""
    assert published("adaclip", "colondb", "pixel_auroc")[0].protocol.trained_on("colondb") == "visa+clinicdb"


def test_differences_of_protocol_in_words() -> None:
    row = published("anomalyclip", "mvtec", "image_auroc")[0]
    same: dict[str, Any] = {
        "auxiliary": "visa",
        "backbone": row.protocol.backbone,
        "image_size": 518,
        "evaluation_size": 518,
    }
    assert protocol_differences(row, **same) == ()
    assert protocol_differences(row, **{**same, "auxiliary": "", "image_size": 240}) == (
        "auxiliary data: visa, ours none",
        "image size: 518, ours 240",
    )
    medical = published("adaclip", "colondb", "pixel_auroc")[0]
    assert protocol_differences(medical, **{**same, "auxiliary": "clinicdb+visa"}) == ()
    quoted = published("coop", "mvtec", "image_auroc")[0]
    assert protocol_differences(quoted, **same)[0] == "auxiliary data: not stated"
    one_shot = published("winclip-1shot", "mvtec", "image_auroc")[0]
    assert "normal images seen: 1" in protocol_differences(one_shot, **same)


FILE = """
[sources]
s = "somewhere"
[protocols.p]
auxiliary = {{ default = "" }}
backbone = "b"
image_size = 1
evaluation_size = 1
[[table]]
source = "s"
columns = [{{ method = "a", protocol = "p", status = "{status}" }}]
metrics = ["image_auroc", "image_ap"]
rows = "{rows}"
"""


def test_marks_dashes_and_scale() -> None:
    text = FILE.format(status="verified", rows="visa | 50.5m -") + "scale = 1\n"
    (row,) = parse(text)
    assert (row.value, row.status, row.metric) == (50.5, "recalled", "image_auroc")
    text = FILE.format(status="recalled", rows="visa | .935v 1.000") + "scale = 100\n"
    assert [(r.value, r.status) for r in parse(text)] == [(93.5, "verified"), (100, "recalled")]


@pytest.mark.parametrize(
    ("status", "table_rows", "message"),
    [
        ("verified", "visa | 1 2 | 3 4", "2 cells, expected 1"),
        ("verified", "visa | 1", "1 values, expected 2"),
        ("verified", "visa | 1 200", "200 is no percentage"),
        ("certain", "visa | 1 2", "status 'certain' is none of"),
    ],
)
def test_slips_in_the_file_are_refused(status: str, table_rows: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        list(parse(FILE.format(status=status, rows=table_rows)))
