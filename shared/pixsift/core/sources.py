"""Which objects a collection judges, and what it reads from their keys.

A source rule names a bucket, a prefix and glob patterns. An object outside every rule's bucket and
prefix is *foreign*: nothing is fetched for it, so that a forged message cannot make the consumer
read another bucket. One inside, but left out by the patterns, is *ignored*: counted, not recorded.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Any, Literal

Reach = Literal["accepted", "ignored", "foreign"]

DEFAULT_KEY_PATTERN = (
    r"(?:^|/)(?P<robot>[^/]+)/(?P<camera>[^/]+)/"
    r"(?:(?P<captured_at>\d{4}-\d{2}-\d{2}T\d{2}[-:]\d{2}[-:]\d{2}(?:\.\d+)?Z?)\.[^./]+|[^/]+)$"
)
"""``robot-2/cam-front/2026-11-22T10-15-03.250Z.jpg``, anywhere below a prefix.

A name that is no time is allowed: ``robot-2/cam-front/0001.jpg`` tells robot and camera.
"""

_TIMESTAMP = re.compile(
    r"(\d{4})-?(\d{2})-?(\d{2})[T_ -](\d{2})[-:]?(\d{2})[-:]?(\d{2})"
    r"(?:[.,](\d{1,9}))?(?:Z|\+00:?00)?"
)


@dataclass(frozen=True, slots=True)
class SourceRule:
    """One bucket and prefix, and the patterns for what is below it.

    A pattern without a slash is tried on the last part of the key, one with a slash on the whole
    key; ``*`` matches across slashes. No ``include`` means everything; ``exclude`` wins.
    """

    bucket: str
    prefix: str = ""
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "SourceRule":
        """From one element of ``collection.sources``."""
        return cls(
            bucket=str(value["bucket"]),
            prefix=str(value.get("prefix", "")),
            include=tuple(value.get("include", ())),
            exclude=tuple(value.get("exclude", ())),
        )

    def to_json(self) -> dict[str, Any]:
        """As stored in ``collection.sources``."""
        return {
            "bucket": self.bucket,
            "prefix": self.prefix,
            "include": list(self.include),
            "exclude": list(self.exclude),
        }

    def reach(self, bucket: str, key: str) -> Reach:
        """Whether this rule judges, ignores or does not know the object."""
        if bucket != self.bucket or not key.startswith(self.prefix):
            return "foreign"
        if any(_matches(key, pattern) for pattern in self.exclude):
            return "ignored"
        if self.include and not any(_matches(key, pattern) for pattern in self.include):
            return "ignored"
        return "accepted"


def reach(rules: Sequence[SourceRule], bucket: str, key: str) -> Reach:
    """The best any of the rules has to say: accepted over ignored over foreign."""
    verdicts = {rule.reach(bucket, key) for rule in rules}
    if "accepted" in verdicts:
        return "accepted"
    return "ignored" if "ignored" in verdicts else "foreign"


@dataclass(frozen=True, slots=True)
class KeyFacts:
    """What a key tells about its object."""

    attributes: dict[str, str] = field(default_factory=dict)
    captured_at: datetime | None = None


def read_key(pattern: re.Pattern[str] | None, key: str) -> KeyFacts:
    """The named groups of ``pattern`` found in ``key``; no match, or no pattern, tells nothing.

    A group ``captured_at`` is read as a UTC time as well, where it is one.
    """
    match = pattern.search(key) if pattern is not None else None
    if match is None:
        return KeyFacts()
    attributes = {name: value for name, value in match.groupdict().items() if value is not None}
    return KeyFacts(attributes, parse_timestamp(attributes.get("captured_at", "")))


def compile_key_pattern(text: str | None) -> re.Pattern[str] | None:
    """The pattern, compiled. Raises ValueError, saying why, for one that is of no use."""
    if not text:
        return None
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise ValueError(f"is no regular expression: {error}") from error
    if not pattern.groupindex:
        raise ValueError("has no named group such as (?P<robot>[^/]+)")
    return pattern


def parse_timestamp(text: str) -> datetime | None:
    """``2026-11-22T10-15-03.250Z`` and its cousins with colons or without separators, as UTC."""
    match = _TIMESTAMP.fullmatch(text)
    if match is None:
        return None
    year, month, day, hour, minute, second = (int(part) for part in match.groups()[:6])
    micros = int((match.group(7) or "0").ljust(6, "0")[:6])
    try:
        return datetime(year, month, day, hour, minute, second, micros, tzinfo=UTC)
    except ValueError:
        return None


def _matches(key: str, pattern: str) -> bool:
    return fnmatchcase(key if "/" in pattern else key.rsplit("/", 1)[-1], pattern)
