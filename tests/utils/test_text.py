"""Text for messages and tables."""

from hrseg.utils.text import one_line, percent, printable, printable_message, some


def test_control_characters_and_direction_overrides_are_escaped():
    message = printable_message("no file a\x1b[2J\x9b\u202egnp\udcff\r\nline two")
    assert message == "no file a\\x1b[2J\\x9b\\u202egnp\\udcff\\r\nline two"


def test_letters_of_all_languages_are_unchanged():
    text = "Straße 道路 дорога\tशहर क्\u200dष 🚗\nb"
    assert printable(text) == text


def test_a_line_of_a_megabyte_is_shortened():
    message = printable_message(f"{'a' * 10**6} is no class\nexpected another")
    assert len(message) < 1000 and message.endswith("is no class\nexpected another")


def test_the_newline_of_a_name_is_escaped():
    assert one_line("a\nhrseg: all is well") == "a\\nhrseg: all is well"


def test_a_list_is_shortened_to_its_first_names_and_a_count():
    assert some(["a", "b"]) == "a, b"
    assert some(["a", "b", "c", "d", "e\n"]) == "a, b, c and 2 more"


def test_an_undefined_ratio_is_a_dash():
    assert (percent(0.12345), percent(None)) == ("12.35", "-")
