"""What a detector has learned from is refused, under whatever name it comes."""

from pathlib import Path

import pytest

from anomalens.errors import ConfigError
from anomalens.evaluation.trained_data import refuse_trained_data
from anomalens.files import file_key

NOTHING: frozenset[int] = frozenset()


def test_images_are_recognised_wherever_they_lie(tmp_path: Path) -> None:
    a, b, moved = tmp_path / "a.png", tmp_path / "b.png", tmp_path / "other" / "name.png"
    moved.parent.mkdir()
    a.write_bytes(b"one")
    b.write_bytes(b"two")
    moved.write_bytes(b"one")
    trained = frozenset({file_key(a)})
    refuse_trained_data("visa", trained, "mine", [b, tmp_path / "missing.png"])
    refuse_trained_data("visa", NOTHING, "mine", [a])
    with pytest.raises(ConfigError, match=r"1 of 2 test images were trained on.*--allow-same-data"):
        refuse_trained_data("visa", trained, "mine", [b, moved])


@pytest.mark.parametrize("dataset", ["mvtec", "MVTec AD", "mvtec_anomaly_detection", "my scans"])
def test_data_sets_are_recognised_by_any_of_their_names(dataset: str) -> None:
    refuse_trained_data(None, NOTHING, dataset, [])
    refuse_trained_data("visa", NOTHING, dataset, [])
    with pytest.raises(ConfigError, match=rf"trained on visa\+mvtec\+My Scans, so a number on {dataset} would"):
        refuse_trained_data("visa+mvtec+My Scans", NOTHING, dataset, [])


def test_likely_names_count_where_images_are_not_known(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="trained on visa, so a number on pcbs would not be zero-shot"):
        refuse_trained_data("visa", NOTHING, "pcbs", [], likely=["pcbs", "visa"])
    refuse_trained_data("visa", frozenset({1}), "pcbs", [], likely=["pcbs", "visa"])
    refuse_trained_data("mvtec", NOTHING, "pcbs", [], likely=["pcbs", "visa"])
