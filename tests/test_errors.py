"""Exceptions and their exit codes, also from data workers."""

import pytest

from hrseg.data.workers import WatchedLoader
from hrseg.errors import ConfigError, DataError, HrsegError, VerificationError


class Broken:
    def __len__(self):
        return 1

    def __getitem__(self, index):
        raise DataError("a.png: id 7 is unknown.\nExpected 0..3.")


def test_exit_codes_are_those_of_the_command_line():
    codes = [error.exit_code for error in (HrsegError, ConfigError, DataError, VerificationError)]
    assert codes == [1, 2, 3, 4]


def test_an_error_keeps_its_message_as_it_is():
    message = "no file a\x1b[2J\r\nconfig: ConfigError: b"
    assert str(ConfigError(message)) == message


def test_an_error_from_a_worker_keeps_its_message_and_loses_the_traceback():
    with pytest.raises(DataError) as error:
        next(iter(WatchedLoader(Broken(), num_workers=1)))
    assert str(error.value) == "a.png: id 7 is unknown.\nExpected 0..3."
