"""Small questions of `anomalens serve`, answered without a service."""

import socket

import pytest

from anomalens.cli.serve import days, shown_host
from anomalens.errors import ConfigError


def test_the_address_that_is_printed_can_be_opened() -> None:
    assert [shown_host(host) for host in ("127.0.0.1", "::1", "plant.example")] == [
        "127.0.0.1",
        "[::1]",
        "plant.example",
    ]
    # All interfaces: nobody can open 0.0.0.0 from another machine.
    assert shown_host("0.0.0.0") == shown_host("::") == socket.gethostname()


def test_spans_of_time() -> None:
    assert [days(text) for text in ("90d", "12h", "1.5w", "2y")] == [90, 0.5, 10.5, 730]
    for text in ("0d", "soon", "-1d", "d"):
        with pytest.raises(ConfigError, match="a number above 0 and a unit, such as 90d"):
            days(text)
