"""Every reason code that a person can meet has words."""

from pixsift.core.images import REASONS
from pixsift.words import REASON_WORDS, in_words, words_and_code


def test_in_words__every_reason_of_the_decoder_has_words() -> None:
    assert set(REASON_WORDS) >= REASONS


def test_in_words__a_code_without_an_entry_reads_as_words() -> None:
    assert in_words("low_contrast") == "low contrast"


def test_words_and_code__shows_the_code_only_where_it_differs() -> None:
    assert words_and_code("content") == "same bytes (content)"
    assert words_and_code("black") == "black"
