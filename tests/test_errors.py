"""Exceptions and their exit codes, also from data workers."""

from hrseg.errors import ConfigError, DataError, HrsegError, VerificationError


def test_exit_codes_are_those_of_the_command_line():
    codes = [error.exit_code for error in (HrsegError, ConfigError, DataError, VerificationError)]
    assert codes == [1, 2, 3, 4]


def test_an_error_keeps_its_message_as_it_is():
    message = "no file a\x1b[2J\r\nconfig: ConfigError: b"
    assert str(ConfigError(message)) == message
