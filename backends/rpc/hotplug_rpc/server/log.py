"""What a server tells: lines of text, or a JSON object each."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator

__all__ = ["logging_to_stderr"]

_KNOWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


class _Lines(logging.Formatter):
    """What happened, and the facts given with it: as text, or as a JSON object."""

    def __init__(self, *, as_json: bool) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")
        self._as_json = as_json

    def format(self, record: logging.LogRecord) -> str:
        """One line, or more where there is a traceback."""
        facts = {name: value for name, value in vars(record).items() if name not in _KNOWN}
        if not self._as_json:
            return super().format(record) + "".join(f" {k}={v}" for k, v in facts.items())
        row = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **{name: str(value) for name, value in facts.items()},
        }
        if record.exc_info:
            row["traceback"] = self.formatException(record.exc_info)
        return json.dumps(row)


@contextlib.contextmanager
def logging_to_stderr(*, as_json: bool, quiet: bool) -> Iterator[None]:
    """Have what happens in a server told on standard error, inside the context."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Lines(as_json=as_json))
    logger = logging.getLogger("hotplug.rpc")
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    logger.setLevel(logging.WARNING if quiet else logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.level, logger.propagate = before
