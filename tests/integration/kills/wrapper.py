"""The production wrapper with another controller: the one with failpoints, started again without a pause."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import replace
from pathlib import Path

from heliostat.cli import wrapper
from heliostat.cli.children import ChildSpec
from heliostat.cli.launch_file import LaunchFile

CONTROLLER = "tests.integration.kills.controller"


class Restarting(wrapper.Wrapper):
    def _controller_spec(self) -> ChildSpec:
        spec = super()._controller_spec()
        return replace(spec, argv=[sys.executable, "-m", CONTROLLER, spec.argv[-1]])


def main() -> None:
    # A hundred deaths in a row are meant: no pause grows.
    wrapper.RESTART_S = (0.1,)
    folder = Path(sys.argv[1])
    asyncio.run(Restarting(folder, LaunchFile.read(folder)).run())


if __name__ == "__main__":
    main()
