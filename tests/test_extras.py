"""Optional dependencies: named where they are missing, quiet where they are used."""

import logging

import pytest

from anomalens.errors import MissingExtraError
from anomalens.extras import optional, quiet_logger


def test_a_missing_package_names_the_extra_to_install() -> None:
    with pytest.raises(MissingExtraError, match=r"'nosuch'.*pip install 'anomalens\[export\]'"):
        optional("nosuch.part", "export")


def test_one_package_is_quiet_and_no_other(caplog: pytest.LogCaptureFixture) -> None:
    with quiet_logger("torch.onnx"):
        logging.getLogger("torch.onnx.exporter").warning("skipping an operator")
        logging.getLogger("service").warning("a lamp is broken")
    logging.getLogger("torch.onnx.exporter").warning("after the export")
    assert [record.getMessage() for record in caplog.records] == ["a lamp is broken", "after the export"]
