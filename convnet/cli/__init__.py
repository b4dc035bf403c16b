"""The commands: thin. Every one of them ends here, so that there is one exit path."""
from __future__ import annotations

import errno
import os
import platform
import shlex
import sys
import traceback
from collections.abc import Callable

from ..errors import ConvnetError, OutOfMemory, WriteFailed

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


def run_command(name: str, main: Callable[[], int | None]) -> None:
    """Runs a command's body and exits with its code; a user's mistake is told without a traceback."""
    try:
        code = main() or 0
        sys.stdout.flush()
    except ConvnetError as error:
        print(f"{name}: {error}", file=sys.stderr)
        code = error.exit_code
    except MemoryError:
        print(f"{name}: out of memory; try a smaller --mini", file=sys.stderr)
        code = OutOfMemory.exit_code
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        code = 130
    except BrokenPipeError:  # `| head`: nobody reads any more
        code = 128 + 13  # as a shell tells SIGPIPE
    except Exception as error:
        if isinstance(error, OSError) and error.errno in DISK_ERRORS:
            print(f"{name}: cannot write: {error.strerror}", file=sys.stderr)
            code = WriteFailed.exit_code
        else:  # our own bug: say so, with all that a report needs
            traceback.print_exc()
            print(f"{name}: this is a bug of convnet's, not of your input. Please report the lines above with the command\n"
                  f"    {shlex.join(sys.argv)}\nPython {platform.python_version()} on {platform.platform()}", file=sys.stderr)
            code = ConvnetError.exit_code
    try:
        sys.stdout.flush()
    except OSError:  # told above; Python would complain of it once more when it exits
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)
