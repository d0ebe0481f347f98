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


NOON = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-22T12:00:00Z", NOON),
        ("2026-11-22T12-00-00", NOON),  # no offset: taken for UTC
        ("20261122T120000Z", NOON),
        ("20261122_120000", NOON),
        ("2026:11:22 12:00:00", NOON),
        ("2026-11-22T21:00:00+09:00", NOON),
        ("2026-11-22T21:00:00+0900", NOON),
        ("2026-11-22T21:00:00+09", NOON),
        ("2026-11-22T06:30:00-05:30", NOON),
        ("2026-11-22 12:00:00 +00:00", NOON),
        ("2026-11-23T01:00:00.25+13:00", NOON.replace(microsecond=250_000)),
        ("2026-11-22T12:00:00,123456789Z", NOON.replace(microsecond=123_456)),
        ("1795348800", NOON),
        ("1795348800.25", NOON.replace(microsecond=250_000)),
        ("1795348800_250000000", NOON.replace(microsecond=250_000)),
        ("1795348800250", NOON.replace(microsecond=250_000)),
        ("1795348800250001", NOON.replace(microsecond=250_001)),
        ("1795348800250001999", NOON.replace(microsecond=250_001)),
        (" 2026-11-22T12:00:00Z ", NOON),
    ],
)
def test_parse_timestamp__forms_that_robots_write(text: str, moment: datetime) -> None:
    assert parse_timestamp(text) == moment


@pytest.mark.parametrize(
    "text",
    ["", "179534880", "17953488001", "1795348800250001999123", "2026-11-22", "12:00:00",
     "2026-11-22T12:00:00+15:00", "2026-11-22T12:00:00+09:75", "1970-01-01T00:00:07Z",
     "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "١٧٩٥٣٤٨٨٠٠"],
)  # fmt: skip
def test_parse_timestamp__other_numbers_are_no_times(text: str) -> None:
    assert parse_timestamp(text) is None


def test_read_key__nanoseconds_as_ros_names_files() -> None:
    pattern = compile_key_pattern(r"(?P<camera>[^/]+)/(?P<captured_at>\d{10,19})\.png$")
    facts = read_key(pattern, "bag-7/left/1795348800250001999.png")
    assert facts.captured_at == NOON.replace(microsecond=250_001)
    assert facts.attributes["camera"] == "left"


@pytest.mark.parametrize(
    "key",
    ["robot-7/", "r/.DS_Store", "r/._0001.jpg", ".hidden.jpg", "r/Thumbs.db", "r/desktop.ini",
     "r/clip.mp4", "r/CLIP.MOV", "r/run.bag", "r/run.mcap", "r/run_0.db3", "r/x.avi"],
)  # fmt: skip
def test_reach__what_is_no_picture_by_its_name_is_ignored(key: str) -> None:
    assert SourceRule("raw").reach("raw", key) == "ignored"
    assert SourceRule("raw", include=("*",)).reach("raw", key) == "ignored"
    assert SourceRule("raw", include=("*.jpg", "r/*")).reach("raw", key) == "ignored"


@pytest.mark.parametrize(
    "key", ["r/a.jpg", "r/noextension", "r.mp4/a.png", ".config/a.jpg", "r/mp4", "r/a.heic", "db3"]
)
def test_reach__what_may_be_a_picture_is_not(key: str) -> None:
    assert SourceRule("raw").reach("raw", key) == "accepted"


@pytest.mark.parametrize(
    ("include", "key"), [("*.mjpg", "r/a.MJPG"), ("*.mjpg", "r/a.mjpg"), (".*", "r/.a.jpg")]
)
def test_reach__unless_an_include_names_its_kind(include: str, key: str) -> None:
    expected = "accepted" if key.endswith(("mjpg", ".a.jpg")) else "ignored"
    assert SourceRule("raw", include=(include,)).reach("raw", key) == expected


@given(st.text(max_size=60))
def test_read_key__never_raises(key: str) -> None:
    read_key(re.compile(DEFAULT_KEY_PATTERN), key)
