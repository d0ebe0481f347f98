from typing import get_args

import pytest

from pixsift.errors import ConflictError, Remedy, RemedyCode, SettingError
from pixsift.remedies import WORDS, one_line


def test_words__every_remedy_has_some() -> None:
    assert set(WORDS) == set(get_args(RemedyCode))


@pytest.mark.parametrize(
    ("remedy", "words"),
    [
        (Remedy("migrate"), "run pixsift migrate"),
        (Remedy("install_extra", {"extra": "cpu"}), "pip install 'pixsift[cpu]'"),
        (Remedy("create_collection", {"source": "s3://b/{}"}), "--source s3://b/{}"),
    ],
)
def test_one_line__says_what_is_wrong_and_what_helps(remedy: Remedy, words: str) -> None:
    line = one_line(SettingError("the thing is wrong", remedy=remedy))
    assert line.startswith("the thing is wrong: ") and words in line and "\n" not in line


def test_one_line__without_a_remedy_is_the_message() -> None:
    assert one_line(ConflictError("generation 3 is being built")) == "generation 3 is being built"
