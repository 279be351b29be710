"""What `import anomalens` gives, and how little it costs."""

import subprocess
import sys

import pytest

import anomalens


def test_import_loads_no_heavy_package() -> None:
    heavy = ["torch", "scipy", "PIL", "safetensors", "tokenizers", "huggingface_hub", "numpy", "rich", "typer"]
    code = f"import sys, anomalens; print([m for m in {heavy} if m in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert loaded.strip() == "[]"


def test_help_loads_no_torch() -> None:
    code = (
        "import sys; sys.argv = ['anomalens', 'detect', '--help']\n"
        "from anomalens.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "assert 'torch' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def test_names_resolve_lazily() -> None:
    assert set(anomalens.__all__) <= set(dir(anomalens))
    for name in anomalens.__all__:
        assert getattr(anomalens, name) is not None
    with pytest.raises(AttributeError, match="nonsense"):
        _ = anomalens.nonsense
