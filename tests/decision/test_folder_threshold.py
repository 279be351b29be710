"""The threshold of an unlabelled folder: the rule, what it stands, and where it ends."""

import numpy as np
import pytest

from anomalens.decision.folder_threshold import folder_threshold


def test_it_lies_three_distances_of_the_quantiles_above_the_higher_one() -> None:
    assert folder_threshold(range(11)) == pytest.approx(4 + 3 * (4 - 1))
    assert folder_threshold([2.0]) == folder_threshold([2.0, 2.0, 2.0]) == 2.0


@pytest.mark.parametrize(("sound", "faulty", "called"), [(18, 0, 0), (18, 2, 2), (18, 6, 6), (18, 10, 10), (12, 18, 0)])
def test_it_stands_four_faulty_images_in_ten(sound: int, faulty: int, called: int) -> None:
    scores = [*np.linspace(1, 2, sound), *np.linspace(8, 9, faulty)]
    assert sum(score > folder_threshold(scores) for score in scores) == called
