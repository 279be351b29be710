"""Measuring and reporting are loaded where neither PyTorch nor pyarrow is installed."""

import subprocess
import sys

SCRIPT = """
import importlib, pkgutil, sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "torchvision", "pyarrow", "skimage", "sklearn", "rich", "typer"}:
            raise ModuleNotFoundError(f"{name} is not installed")

sys.meta_path.insert(0, Missing())
for room in ("metrics", "decision", "evaluation", "reporting"):
    package = importlib.import_module(f"anomalens.{room}")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"anomalens.{room}.{module.name}")
        print(room, module.name)
"""


def test_every_module_is_imported() -> None:
    ran = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stderr
    loaded = ran.stdout.splitlines()
    for name in ("metrics bootstrap", "decision conformal", "evaluation benchmarking", "reporting evaluation_page"):
        assert name in loaded
