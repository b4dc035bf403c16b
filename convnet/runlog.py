"""The log of a run: one JSON object a line."""
from __future__ import annotations

import contextlib
import json
import sys
import time
from pathlib import Path

from .errors import CannotCreate, WriteFailed


class RunLog:
    """Events start, train, test, stage, rates, checkpoint, warning, end, each with its time in seconds since 1970.

    A file that exists is added to: a resumed run goes on in the log of the first. Once it was `start`ed, leaving the
    `with` writes the end, with the reason.
    """

    started = False

    def __init__(self, path: Path | None):
        self.path = path
        try:
            self._file = open(path, "a", encoding="utf-8") if path else None  # noqa: SIM115 (closed by __exit__)
        except OSError as error:
            raise CannotCreate(f"--log {path}: {error.strerror}") from None

    def write(self, event: str, **fields) -> None:
        if not self._file:
            return
        try:
            self._file.write(json.dumps({"event": event, "time": round(time.time(), 3), **fields}, allow_nan=False) + "\n")
            self._file.flush()
        except OSError as error:
            raise WriteFailed(f"--log {self.path}: {error.strerror}") from None

    def warning(self, text: str) -> None:
        print(f"warning: {text}", file=sys.stderr)
        self.write("warning", text=text)

    def start(self, **fields) -> None:
        self.started = True
        self.write("start", **fields)

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _) -> None:
        try:
            if self.started:
                self.write("end", reason="done" if error is None else str(error) or type(error).__name__)
        except WriteFailed:
            if error is None:
                raise  # else the error on its way out is the one to tell
        finally:
            if self._file:
                with contextlib.suppress(OSError):  # told by the write
                    self._file.close()
