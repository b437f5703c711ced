import pytest
from torch.utils.data import DataLoader

from hrseg.errors import ConfigError, DataError, HrsegError, VerificationError
from hrseg.utils.text import one_line, printable


class Broken:
    def __len__(self):
        return 1

    def __getitem__(self, index):
        raise DataError("a.png: id 7 is unknown.\nExpected 0..3.")


def test_exit_codes_are_those_of_the_command_line():
    codes = [error.exit_code for error in (HrsegError, ConfigError, DataError, VerificationError)]
    assert codes == [1, 2, 3, 4]


def test_an_error_from_a_worker_keeps_its_message_and_loses_the_traceback():
    with pytest.raises(DataError) as error:
        next(iter(DataLoader(Broken(), num_workers=1)))
    assert str(error.value) == "a.png: id 7 is unknown.\nExpected 0..3."


def test_controls_and_what_turns_text_are_shown_in_messages():
    said = str(DataError("no file a\x1b[2J\x9b\u202egnp\udcff\r\nline two"))
    assert said == "no file a\\x1b[2J\\x9b\\u202egnp\\udcff\\r\nline two"


def test_letters_of_all_languages_stay():
    text = "Straße 道路 дорога\tशहर क्\u200dष 🚗\nb"
    assert printable(text) == text


def test_a_line_of_a_megabyte_is_cut():
    said = str(ConfigError(f"{'a' * 10**6} is no class\nexpected another"))
    assert len(said) < 1000 and said.endswith("is no class\nexpected another")


def test_a_name_stays_in_its_line():
    assert one_line("a\nhrseg: all is well") == "a\\nhrseg: all is well"
