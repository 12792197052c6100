"""The two files of the head's session that tell people what the autoscaler does.

`events/event_AUTOSCALER.log` is read by the head's log monitor and printed in drivers;
`monitor.log` is what the dashboard's log page shows, and `ray monitor` under `/tmp/ray`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ray._private.event.event_logger import EventLoggerAdapter
from ray.core.generated import event_pb2

from heliostat.raylink.driver_lines import Line

pb: Any = event_pb2

EVENT_FILE = "event_AUTOSCALER.log"
MONITOR_FILE = "monitor.log"


class SessionLog:
    """Appends to both files. A disk that refuses costs the lines, never the round."""

    def __init__(self, log_dir: str) -> None:
        folder = Path(log_dir)
        (folder / "events").mkdir(parents=True, exist_ok=True)
        self._handlers: list[logging.Handler] = []
        # Ray's own factory keeps one file for the life of the process, whatever session it is asked for.
        self._events: Any = EventLoggerAdapter(
            pb.Event.SourceType.AUTOSCALER, self._logger(folder / "events" / EVENT_FILE, "%(message)s")
        )
        self._monitor = self._logger(
            folder / MONITOR_FILE, "%(asctime)s\t%(levelname)s heliostat -- %(message)s"
        )

    def write(self, lines: Iterable[Line]) -> None:
        for line in lines:
            if line.warning:
                self._events.warning(line.text)
                self._monitor.warning(line.text)
            else:
                self._events.info(line.text)
                self._monitor.info(line.text)

    def note(self, text: str) -> None:
        """Write to `monitor.log` only."""
        self._monitor.info(text)

    def close(self) -> None:
        for handler in self._handlers:
            handler.close()

    def _logger(self, path: Path, form: str) -> logging.Logger:
        handler = _Handler(path)
        handler.setFormatter(logging.Formatter(form))
        self._handlers.append(handler)
        # Not from the registry of loggers: nobody else may add to, or configure, these files.
        logger = logging.Logger(f"heliostat.{path.name}", level=logging.INFO)  # noqa: LOG001
        logger.addHandler(handler)
        return logger


class _Handler(logging.FileHandler):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Stay silent: the base would print a traceback for every line of a full disk."""
