"""Every way a user's input can fail, with the exit code that the commands give it.

A message says what was found, where, what was expected and what to do. The commands print it without a traceback.
"""


class ConvnetError(Exception):
    """What the user can mend; `exit_code` follows sysexits.h."""

    exit_code = 70


class CommandLineError(ConvnetError):
    exit_code = 2


class DataError(ConvnetError, ValueError):
    """A file that is corrupt, truncated, or does not hold what it should."""

    exit_code = 65


class MissingInput(ConvnetError):
    exit_code = 66


class NoSuchDevice(ConvnetError):
    exit_code = 69


class CaptureFailed(ConvnetError):
    """The backend made no graph of a plan's steps."""

    exit_code = 69


class OutOfMemory(ConvnetError):
    exit_code = 71


class CannotCreate(ConvnetError):
    """An output that cannot be made, or a directory that another run is using."""

    exit_code = 73


class WriteFailed(ConvnetError):
    exit_code = 74


class ConfigError(ConvnetError, ValueError):
    """What a config file says, found wrong; the message names file, line, section and key."""

    exit_code = 78
