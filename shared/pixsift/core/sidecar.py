"""Reads attributes from a sidecar file: CSV, JSON or JSON lines. Pure; the ledger is not asked.

A record names an object by ``uri`` (``s3://bucket/key?versionId=...``) or by ``key`` (with
``bucket`` and ``version_id`` if wanted); everything else in it is an attribute. An empty CSV cell
says nothing; a JSON null removes the attribute, whichever source gave it. Nothing is guessed: an
ambiguous file (a repeated name, an object named in two ways) is refused, and the message names the
place.
"""

import csv
import io
import json
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from pixsift.core.identity import S3Uri
from pixsift.errors import RequestError

Form = Literal["csv", "json", "jsonl"]
_NAMES = ("uri", "key", "bucket", "version_id")


@dataclass(frozen=True, slots=True)
class SidecarRow:
    """One row: what a file says about one object."""

    place: str
    """Where in the file, for messages: ``line 7``."""
    key: str
    bucket: str | None
    version_id: str | None
    attributes: dict[str, str | None]
    """None takes an attribute away."""

    @property
    def named(self) -> tuple[str | None, str, str | None]:
        """Two rows with the same value are about the same object."""
        return self.bucket, self.key, self.version_id


def parse_sidecar(text: str, form: Form) -> list[SidecarRow]:
    """All rows of a file. Raises UserError with the place of what is wrong."""
    records = {"csv": _csv, "json": _json, "jsonl": _json_lines}[form](text.removeprefix("\ufeff"))
    rows = [_row(place, record) for place, record in records]
    if not rows:
        raise RequestError("the sidecar file has no records")
    seen: dict[tuple[str | None, str, str | None], str] = {}
    for row in rows:
        earlier = seen.setdefault(row.named, row.place)
        if earlier != row.place:
            raise RequestError(f"{row.place} names {row.key!r} again, as {earlier} did")
    return rows


def _csv(text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        repeated = {name for name in header if header.count(name) > 1}
        if repeated or "" in header:
            raise RequestError(f"the header has a repeated or empty name: {', '.join(header)}")
        for cells in reader:
            place = f"line {reader.line_num}"
            if not cells:
                continue
            if len(cells) != len(header):
                raise RequestError(f"{place} has {len(cells)} cells, the header {len(header)}")
            yield place, {name: cell for name, cell in zip(header, cells, strict=True) if cell}
    except csv.Error as exc:
        raise RequestError(f"line {reader.line_num}: {exc}") from exc


def _json_lines(text: str) -> Iterator[tuple[str, Any]]:
    # Only at line feeds: ``splitlines`` would cut at characters that a JSON text may hold.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield f"line {number}", _parsed(line, f"line {number}: ")


def _json(text: str) -> Iterator[tuple[str, Any]]:
    found = _parsed(text, "")
    if isinstance(found, dict):
        for name, record in found.items():
            field = "uri" if name.startswith("s3://") else "key"
            if not isinstance(record, dict):
                raise RequestError(f"{name!r}: attributes must be an object of names and values")
            if field in record:
                raise RequestError(f"{name!r} names its object again, by {field}")
            yield repr(name), {field: name, **record}
    elif isinstance(found, list):
        for number, record in enumerate(found, start=1):
            yield f"record {number}", record
    else:
        raise RequestError("a JSON sidecar is a list of records, or an object by key or URI")


def _parsed(text: str, place: str) -> Any:
    def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
        record = dict(found)
        if len(record) < len(found):
            names = [name for name, _ in found]
            twice = next(name for name in record if names.count(name) > 1)
            raise RequestError(f"{place}{twice!r} occurs twice in one object")
        return record

    try:
        return json.loads(text, object_pairs_hook=pairs)
    except (ValueError, RecursionError) as exc:
        raise RequestError(f"{place}not valid JSON: {exc}") from exc


def _row(place: str, record: Any) -> SidecarRow:
    if not isinstance(record, dict):
        raise RequestError(f"{place} must be a record, not {type(record).__name__}")
    names = {name: _text(place, name, record[name]) for name in _NAMES if name in record}
    inner = record.get("attributes", {})
    if not isinstance(inner, dict):
        raise RequestError(f"{place}: attributes must be an object of names and values")
    flat = {n: v for n, v in record.items() if n not in _NAMES and n != "attributes"}
    twice = sorted(flat.keys() & inner.keys())
    if twice:
        raise RequestError(f"{place} says {twice[0]!r} twice, by itself and among its attributes")
    attributes = {n: _value(place, n, v) for n, v in {**flat, **inner}.items()}
    if not attributes:
        raise RequestError(f"{place} has no attribute")
    if ("uri" in names) == ("key" in names):
        raise RequestError(f"{place} must name its object by either uri or key")
    if "uri" not in names:
        return SidecarRow(place, names["key"], names.get("bucket"), names.get("version_id"),
                          attributes)  # fmt: skip
    if len(names) > 1:
        raise RequestError(f"{place}: a uri holds bucket and version: leave the other names out")
    try:
        uri = S3Uri.parse(names["uri"])
    except ValueError as exc:
        raise RequestError(f"{place}: {names['uri']!r} {exc}") from exc
    return SidecarRow(place, uri.key, uri.bucket, uri.version_id, attributes)


def _value(place: str, name: str, value: Any) -> str | None:
    if not name or not _is_clean(name):
        raise RequestError(f"{place} has an attribute without a proper name")
    if value is None:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    return _text(place, name, value)


def _text(place: str, name: str, value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise RequestError(f"{place}: {name} must be text or a number, not {type(value).__name__}")
    text = str(value)
    if not _is_clean(text):
        raise RequestError(f"{place}: {name} contains control characters")
    return text


def _is_clean(text: str) -> bool:
    """Neither control characters nor half a surrogate pair; spaces and joiners of any kind pass."""
    return not any(unicodedata.category(character) in ("Cc", "Cs") for character in text)
