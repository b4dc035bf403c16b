"""The commands: thin. Every one of them ends here, so that there is one exit path."""
from __future__ import annotations

import platform
import sys
import traceback
from collections.abc import Callable

from ..errors import ConvnetError, OutOfMemory


def run_command(name: str, main: Callable[[], int | None]) -> None:
    """Runs a command's body and exits with its code; a user's mistake is told without a traceback."""
    try:
        code = main() or 0
    except ConvnetError as error:
        print(f"{name}: {error}", file=sys.stderr)
        code = error.exit_code
    except MemoryError:
        print(f"{name}: out of memory; try a smaller --mini", file=sys.stderr)
        code = OutOfMemory.exit_code
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        code = 130
    except BrokenPipeError:
        sys.stderr.close()  # nobody reads any more; Python would complain about it when it exits
        code = 0
    except Exception:  # our own bug: say so, with all that a report needs
        traceback.print_exc()
        print(f"{name}: this is a bug of convnet's, not of your input. Please report the lines above with the command\n"
              f"    {' '.join(sys.argv)}\nPython {platform.python_version()} on {platform.platform()}", file=sys.stderr)
        code = ConvnetError.exit_code
    sys.stdout.flush()
    sys.exit(code)
