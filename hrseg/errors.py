"""Exceptions for errors in configs, data and results, and their exit codes.

A message states the fault and its location, the expected value, and the fix.
"""


class HrsegError(Exception):
    """Base class of errors with a message for the user. The command line prints it and exits.

    Attributes:
        exit_code: exit code of the process.
    """

    exit_code = 1


class ConfigError(HrsegError):
    """An invalid command line, config or argument."""

    exit_code = 2


class DataError(HrsegError):
    """An invalid image, mask, list or folder."""

    exit_code = 3


class VerificationError(HrsegError):
    """A failed verification, e.g. a NaN loss, or an exported file with different results."""

    exit_code = 4
