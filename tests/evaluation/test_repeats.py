"""Runs with different seeds, joined: means, deviations, and what one of them lacks."""

from typing import Any

import pytest

from anomalens.evaluation.repeats import mean_of_runs


def run(auroc: float | None, seed: int = 0) -> dict[str, Any]:
    row = {"n_normal": 3, "n_anomalous": 4, "image_auroc": auroc, "decisions": {"found": 1}}
    return {
        "method": "anoclip+",
        "protocol": {"seed": seed},
        "classes": {"nut": row, "bolt": {"n_normal": None, "n_anomalous": None, "image_auroc": None, "reason": "none"}},
        "mean": {"image_auroc": auroc},
        "intervals": {"nut": {"image_auroc": [1.0, 2.0]}},
        "decisions": {"found": 1},
    }


def test_means_and_sample_deviations() -> None:
    joined = mean_of_runs([run(90.0), run(93.0, 1), run(96.0, 2)])
    assert (joined["mean"], joined["mean_std"], joined["runs"]) == ({"image_auroc": 93.0}, {"image_auroc": 3.0}, 3)
    nut = joined["classes"]["nut"]
    assert (nut["n_normal"], nut["n_anomalous"], nut["image_auroc"], nut["image_auroc_std"]) == (3, 4, 93.0, 3.0)
    assert joined["classes"]["bolt"]["reason"] == "none"
    assert joined["classes"]["bolt"]["image_auroc"] is None
    assert (joined["method"], joined["protocol"]) == ("anoclip+", {"seed": 0})
    assert "decisions" not in joined


@pytest.mark.parametrize("values", [(90.0, None), (None, None)])
def test_a_number_that_a_run_lacks_has_no_mean(values: tuple[float | None, ...]) -> None:
    joined = mean_of_runs([run(value) for value in values])
    assert (joined["mean"], joined["mean_std"]) == ({"image_auroc": None}, {"image_auroc": None})
