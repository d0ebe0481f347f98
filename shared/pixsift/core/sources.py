"""Which objects a collection judges, and what it reads from their keys.

A source rule names a bucket, a prefix and glob patterns. An object outside every rule's bucket and
prefix is *foreign*: nothing is fetched for it, so that a forged message cannot make the consumer
read another bucket. One inside, but left out by the patterns, is *ignored*: counted, not recorded.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from typing import Any, Literal

Reach = Literal["accepted", "ignored", "foreign"]

DEFAULT_KEY_PATTERN = (
    r"(?:^|/)(?P<robot>[^/]+)/(?P<camera>[^/]+)/"
    r"(?:(?P<captured_at>\d{4}-\d{2}-\d{2}T\d{2}[-:]\d{2}[-:]\d{2}(?:\.\d+)?Z?)\.[^./]+|[^/]+)$"
)
"""``robot-2/cam-front/2026-11-22T10-15-03.250Z.jpg``, anywhere below a prefix.

A name that is not a time is allowed: ``robot-2/cam-front/0001.jpg`` gives robot and camera.
"""

_TIMESTAMP = re.compile(
    r"(\d{4})[-:/]?(\d{2})[-:/]?(\d{2})[Tt_ -](\d{2})[-:]?(\d{2})[-:]?(\d{2})"
    r"(?:[.,](\d{1,9}))? ?([Zz]|[+-]\d{2}:?\d{2}|[+-]\d{2})?",
    re.ASCII,
)
_EPOCH = re.compile(r"(\d{10})(?:[._](\d{1,9}))?|(\d{13}|\d{16}|\d{19})", re.ASCII)
"""Seconds, with a fraction; milliseconds, microseconds, nanoseconds: from 2001 to 2286, a number
with this many digits under the name ``captured_at`` is hardly anything else."""
_RECORDINGS = frozenset({
    "mp4", "m4v", "mov", "avi", "mkv", "webm", "mpg", "mpeg", "m2ts", "mts", "wmv", "flv", "3gp",
    "ogv", "h264", "h265", "264", "265", "hevc", "mjpeg", "mjpg", "y4m",
    "bag", "mcap", "db3",
})  # fmt: skip
"""Extensions of video, and of what robots record into."""
_LEFT_BEHIND = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", "_success"})
_UNSET = datetime(1970, 1, 2, tzinfo=UTC)
"""A clock that was never set."""


@dataclass(frozen=True, slots=True)
class SourceRule:
    """One bucket and prefix, and the patterns for what is below it.

    A pattern without a slash is tried on the last part of the key, one with a slash on the whole
    key; ``*`` matches across slashes. No ``include`` means everything; ``exclude`` wins. An object
    whose key shows that it is not a picture (``is_no_picture``) is left out unless an ``include``
    names its kind: ``*.mp4``, ``.*``.
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
        wanting = [pattern for pattern in self.include if _matches(key, pattern)]
        if self.include and not wanting:
            return "ignored"
        if is_no_picture(key) and not any(_names(pattern, key) for pattern in wanting):
            return "ignored"
        return "accepted"


def is_no_picture(key: str) -> bool:
    """Whether the key alone shows that it is not an image: a folder marker of S3's console, a
    hidden file, what file managers leave behind, a video or a recording."""
    name = key.rsplit("/", 1)[-1].lower()
    extension = name.rsplit(".", 1)[-1] if "." in name else ""
    return not name or name.startswith(".") or name in _LEFT_BEHIND or extension in _RECORDINGS


def reach(rules: Sequence[SourceRule], bucket: str, key: str) -> Reach:
    """The best verdict of the rules: accepted before ignored before foreign."""
    verdicts = {rule.reach(bucket, key) for rule in rules}
    if "accepted" in verdicts:
        return "accepted"
    return "ignored" if "ignored" in verdicts else "foreign"


def why_ignored(rules: Sequence[SourceRule], key: str) -> str:
    """The patterns that leave out ``key``, of rules that all ignore it."""
    reasons = []
    for rule in rules:
        excluding = [pattern for pattern in rule.exclude if _matches(key, pattern)]
        reasons += [f"exclude {pattern!r}" for pattern in excluding[:1]]
        if not excluding and rule.include:
            reasons.append(f"include {', '.join(map(repr, rule.include))}, which it does not match")
    return "; ".join(dict.fromkeys(reasons))


@dataclass(frozen=True, slots=True)
class KeyFacts:
    """What a key says about its object."""

    attributes: dict[str, str] = field(default_factory=dict)
    captured_at: datetime | None = None


def read_key(pattern: re.Pattern[str] | None, key: str) -> KeyFacts:
    """The named groups of ``pattern`` found in ``key``; no match, or no pattern, gives nothing.

    A group ``captured_at`` is read as a time as well, where it is one.
    """
    match = pattern.search(key) if pattern is not None else None
    if match is None:
        return KeyFacts()
    attributes = {name: value for name, value in match.groupdict().items() if value is not None}
    return KeyFacts(attributes, parse_timestamp(attributes.get("captured_at", "")))


def compile_key_pattern(text: str | None) -> re.Pattern[str] | None:
    """The pattern, compiled. Raises ValueError, with the reason, for one that cannot be used."""
    if not text:
        return None
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise ValueError(f"is not a regular expression: {error}") from error
    if not pattern.groupindex:
        raise ValueError("has no named group such as (?P<robot>[^/]+)")
    return pattern


def parse_timestamp(text: str) -> datetime | None:
    """A time in UTC, or None where the text is not a time.

    ``2026-11-22T10-15-03.250Z`` and its variants with colons or without separators; an offset such
    as ``+09:00`` counts, and without one it is taken for UTC. Or seconds, milliseconds,
    microseconds or nanoseconds since 1970, recognized by their 10, 13, 16 or 19 digits.
    """
    text = text.strip()
    if (epoch := _EPOCH.fullmatch(text)) is not None:
        return _from_epoch(epoch)
    match = _TIMESTAMP.fullmatch(text)
    if match is None:
        return None
    year, month, day, hour, minute, second = (int(part) for part in match.groups()[:6])
    try:
        local = datetime(year, month, day, hour, minute, second, _micros(match[7]), tzinfo=UTC)
        found = local - _offset(match[8])
    except (ValueError, OverflowError):
        return None
    return found if found >= _UNSET else None


def _from_epoch(match: re.Match[str]) -> datetime | None:
    if match[1] is not None:
        seconds, micros = int(match[1]), _micros(match[2])
    else:
        seconds, micros = int(match[3][:10]), _micros(match[3][10:])
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds, microseconds=micros)


def _micros(fraction: str | None) -> int:
    return int((fraction or "").ljust(6, "0")[:6])


def _offset(text: str | None) -> timedelta:
    """Raises ValueError for one that no clock on Earth shows."""
    if text is None or text in "Zz":
        return timedelta(0)
    digits = text[1:].replace(":", "").ljust(4, "0")
    hours, minutes = int(digits[:2]), int(digits[2:])
    if hours > 14 or minutes > 59:
        raise ValueError(text)
    offset = timedelta(hours=hours, minutes=minutes)
    return -offset if text[0] == "-" else offset


def _names(pattern: str, key: str) -> bool:
    """Whether a pattern that matches ``key`` means files of just its kind."""
    last, name = pattern.rsplit("/", 1)[-1].lower(), key.rsplit("/", 1)[-1].lower()
    if name.startswith("."):
        return last.startswith(".")
    extension = "." + name.rsplit(".", 1)[-1]
    return bool(name) and (last.endswith(extension) or last == name)


def _matches(key: str, pattern: str) -> bool:
    return fnmatchcase(key if "/" in pattern else key.rsplit("/", 1)[-1], pattern)
