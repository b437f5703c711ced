"""The errors a user meets: what is wrong, where, what was expected, how to repair it."""


class HrsegError(Exception):
    """Base of every error that is the user's to repair; the command line prints it and exits.

    Attributes:
        exit_code: what the process ends with.
    """

    exit_code = 1

    def __init__(self, message: str) -> None:
        """Keep the message alone where a DataLoader worker has wrapped it in its traceback."""
        super().__init__(message.rpartition(f"{type(self).__name__}: ")[2].strip())


class ConfigError(HrsegError):
    """A wrong command line, config, or argument."""

    exit_code = 2


class DataError(HrsegError):
    """A wrong image, mask, list or folder."""

    exit_code = 3


class ProofError(HrsegError):
    """A proof or a number failed: NaN loss, exports that do not agree."""

    exit_code = 4
