"""The log of a run: one JSON object a line."""
from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from .errors import CannotCreate, WriteFailed


class RunLog:
    """Events start, train, test, checkpoint, warning, end, each with its time in seconds since 1970.

    A file that exists is added to: a resumed run goes on in the log of the first.
    """

    def __init__(self, path: Path | None):
        self.path = path
        try:
            self._file = open(path, "a", encoding="utf-8") if path else None
        except OSError as error:
            raise CannotCreate(f"--log {path}: {error.strerror}") from None

    def write(self, event: str, **fields) -> None:
        if not self._file:
            return
        try:
            self._file.write(json.dumps({"event": event, "time": round(time.time(), 3), **fields}) + "\n")
            self._file.flush()
        except OSError as error:
            raise WriteFailed(f"--log {self.path}: {error.strerror}") from None

    def warning(self, text: str) -> None:
        print(f"warning: {text}", file=sys.stderr)
        self.write("warning", text=text)

    def close(self) -> None:
        if self._file:
            self._file.close()
