"""What is left of an environment where a process changed its title."""

from __future__ import annotations

import pytest

from heliostat.model.environ import is_overwritten


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        (b"PATH=/bin\0HOME=/\0", False),
        (b"BASH_FUNC_module%%=() { }\0HOME=/\0", False),
        (b"", True),
        (b"\0" * 900, True),
        # The title of one of the dashboard's processes is its whole command line.
        (b"ackages', '/src']})\0\0\0\0", True),
        (b"main(7, key='x=1')\0\0", True),
        (b"spawn_main(tracker_fd=5)\0\0", True),
        (b"ray::lr=0.1\0\0", True),
        (b"--temp-dir=/tmp/ray\0\0", True),
        (b"BASH_FUNC_ml()=() { }\0", False),
        # Of Ray's agents, the last variables are left.
        (b"\0" * 531 + b"RAY_CLIENT_MODE=0\0PATH=/bin\0", True),
        (b"   \0 \0HELIOSTAT_CLUSTER_UID=u\0", True),
    ],
)
def test_the_first_entry_tells(environ: bytes, expected: bool) -> None:
    assert is_overwritten(environ) is expected
