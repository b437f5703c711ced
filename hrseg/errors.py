"""Exceptions for mistakes in configs, data and results, with the exit code of each.

A message states the fault and its place, the expectation, and the fix.
"""


class HrsegError(Exception):
    """Base of every error with a message for the user; the command line prints it and exits.

    Attributes:
        exit_code: exit code of the process.
    """

    exit_code = 1


class ConfigError(HrsegError):
    """A wrong command line, config, or argument."""

    exit_code = 2


class DataError(HrsegError):
    """A wrong image, mask, list or folder."""

    exit_code = 3


class VerificationError(HrsegError):
    """A failed verification: a NaN loss, an exported file with other results."""

    exit_code = 4
