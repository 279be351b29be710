"""The scenes that come with anomalens are those that the laboratory draws."""

from pathlib import Path

from anomalens.backbones.bundle import BUNDLED_FILE
from anomalens.datasets.layouts import open_dataset
from anomalens_lab import check_scenes
from anomalens_lab.synthesis import HELD_OUT_FAMILIES


def test_the_bundled_scenes_are_what_the_command_draws(tmp_path: Path) -> None:
    (tmp_path / "old.png").write_bytes(b"of an earlier choice of seeds")
    assert check_scenes.write_check_scenes(tmp_path) == 4 * len(HELD_OUT_FAMILIES)
    drawn = {path.relative_to(tmp_path) for path in tmp_path.rglob("*.*")}
    bundled = BUNDLED_FILE.parent / "scenes"
    assert drawn == {path.relative_to(bundled) for path in bundled.rglob("*.*")}
    assert open_dataset(f"mvtec:{tmp_path}").counts() == open_dataset(f"mvtec:{bundled}").counts()
