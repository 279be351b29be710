"""The product stands without the laboratory that makes its weights."""

import subprocess
import sys
from pathlib import Path

import anomalens

SOURCE = Path(anomalens.__file__).parent

IMPORT_ALL = """
import importlib, pkgutil, sys
sys.modules["anomalens_lab"] = None  # importing it, or anything in it, now fails
import anomalens
names = [module.name for module in pkgutil.walk_packages(anomalens.__path__, "anomalens.")]
for name in names:
    # Alembic runs the one, and Python the other.
    if not name.endswith(("__main__", "migrations.env")):
        importlib.import_module(name)
print(len(names))
"""


def test_no_file_of_the_product_names_the_laboratory() -> None:
    texts = [path for path in SOURCE.rglob("*") if path.suffix in (".py", ".toml", ".html")]
    assert len(texts) > 100
    assert [str(path) for path in texts if "anomalens_lab" in path.read_text(encoding="utf-8")] == []


def test_every_module_is_imported_without_the_laboratory() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORT_ALL], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 100
