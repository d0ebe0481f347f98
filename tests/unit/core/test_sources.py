"""Source rules and key patterns."""

import re
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixsift.core.sources import (
    DEFAULT_KEY_PATTERN,
    KeyFacts,
    SourceRule,
    compile_key_pattern,
    parse_timestamp,
    reach,
    read_key,
)

RULE = SourceRule("raw", "site-a/", include=("*.jpg", "*.png"), exclude=("*.json", "site-a/tmp/*"))


@pytest.mark.parametrize(
    ("bucket", "key", "expected"),
    [
        ("raw", "site-a/r1/1.jpg", "accepted"),
        ("raw", "site-a/r1/1.json", "ignored"),  # excluded by its last part
        ("raw", "site-a/r1/1.txt", "ignored"),  # not included
        ("raw", "site-a/tmp/deep/1.jpg", "ignored"),  # excluded by its whole key
        ("raw", "site-b/r1/1.jpg", "foreign"),  # other prefix
        ("other", "site-a/r1/1.jpg", "foreign"),  # other bucket
    ],
)
def test_reach__each_kind(bucket: str, key: str, expected: str) -> None:
    assert RULE.reach(bucket, key) == expected


def test_reach__the_best_rule_wins() -> None:
    rules = [RULE, SourceRule("raw", "site-a/tmp/")]
    assert reach(rules, "raw", "site-a/tmp/1.jpg") == "accepted"
    assert reach(rules, "raw", "site-a/x.txt") == "ignored"
    assert reach([], "raw", "x") == "foreign"


def test_rule__survives_json() -> None:
    assert SourceRule.from_json(RULE.to_json()) == RULE


def test_read_key__default_pattern() -> None:
    facts = read_key(
        compile_key_pattern(DEFAULT_KEY_PATTERN),
        "robot-2/cam-front/2026-11-22T10-15-03.250Z.jpg",
    )
    assert facts.attributes["robot"] == "robot-2"
    assert facts.attributes["camera"] == "cam-front"
    assert facts.captured_at == datetime(2026, 11, 22, 10, 15, 3, 250_000, tzinfo=UTC)


@pytest.mark.parametrize("name", ["0001.jpg", "a b.tar.gz", "frame", "2026-11-22.jpg"])
def test_read_key__default_pattern_takes_any_file_name(name: str) -> None:
    facts = read_key(compile_key_pattern(DEFAULT_KEY_PATTERN), f"day-1/robot-2/cam-front/{name}")
    assert facts == KeyFacts({"robot": "robot-2", "camera": "cam-front"})


def test_read_key__no_match_tells_nothing() -> None:
    assert read_key(compile_key_pattern(DEFAULT_KEY_PATTERN), "holiday.jpg") == KeyFacts()
    assert read_key(None, "holiday.jpg") == KeyFacts()


@pytest.mark.parametrize("text", ["(unclosed", "no-groups-at-all"])
def test_compile_key_pattern__says_what_is_wrong(text: str) -> None:
    with pytest.raises(ValueError, match=r"regular expression|named group"):
        compile_key_pattern(text)


def test_parse_timestamp__refuses_what_is_no_time() -> None:
    assert parse_timestamp("2026-13-41T10-15-03Z") is None
    assert parse_timestamp("yesterday") is None


@given(st.text(max_size=60))
def test_read_key__never_raises(key: str) -> None:
    read_key(re.compile(DEFAULT_KEY_PATTERN), key)
