"""Parses the body of a queue message into the object versions that it is about.

Lenient where S3, EventBridge, SNS and the emulators differ (schema 2.x, envelopes, fields that
are missing), strict about what would lead to a wrong object: keys are decoded exactly once, and a
key that cannot be decoded is an anomaly, never a guess. ``parse_notification`` never raises:
what is not an object event is returned as ``anomaly``, next to the valid records.
"""

import json
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote_plus, unquote_plus

from pydantic import ValidationError

from pixsift.messages import Backfill

BACKFILL_SCHEMA = "pixsift.backfill/1"
MAX_KEY_BYTES = 1024
"""https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html"""
_MAX_ENVELOPES = 4
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
_SEQUENCER = re.compile(r"[0-9A-Fa-f]{1,64}")


@dataclass(frozen=True, slots=True)
class ObjectCreated:
    """News that a version was written. Everything but bucket and key may be unknown."""

    bucket: str
    key: str
    version_id: str | None = None
    etag: str | None = None
    size_bytes: int | None = None
    sequencer: str | None = None


@dataclass(frozen=True, slots=True)
class ObjectRemoved:
    """News that a version was deleted or hidden; a hint, to be confirmed at S3."""

    bucket: str
    key: str
    version_id: str | None = None
    """The deleted version; for a delete marker the marker's own id."""
    etag: str | None = None
    sequencer: str | None = None
    delete_marker: bool = False
    expired: bool = False
    """A lifecycle rule deleted it: the collection's expiry policy applies."""


ObjectEvent = ObjectCreated | ObjectRemoved


@dataclass(frozen=True, slots=True)
class ParsedMessage:
    """The object events of a message, and why the rest is not an object event."""

    records: tuple[ObjectEvent, ...] = ()
    anomaly: str | None = None


class _Anomaly(Exception):  # noqa: N818 - an answer, not an error
    """Internal: this piece is not an object event; the text is the ledger's reason code."""


def parse_notification(body: str) -> ParsedMessage:
    """The object events in ``body``; never raises.

    Understands S3 notifications of schema 2.x, EventBridge "Object Created/Deleted", either of
    them inside an SNS envelope, and our own ``Backfill`` message.
    """
    try:
        return _parse(json.loads(body), depth=0)
    except _Anomaly as anomaly:
        return ParsedMessage(anomaly=str(anomaly))
    except (ValueError, RecursionError):
        return ParsedMessage(anomaly="not_json")


def notification_of(event: ObjectEvent) -> str:
    """The body of a message with ``event`` alone, as S3 would have sent it."""
    if isinstance(event, ObjectCreated):
        name, size = "ObjectCreated:Put", event.size_bytes
    else:
        kind = "LifecycleExpiration" if event.expired else "ObjectRemoved"
        name = f"{kind}:{'DeleteMarkerCreated' if event.delete_marker else 'Delete'}"
        size = None
    entity = {
        "key": quote_plus(event.key), "versionId": event.version_id, "eTag": event.etag,
        "size": size, "sequencer": event.sequencer,
    }  # fmt: skip
    fields = {name: value for name, value in entity.items() if value is not None}
    record = {
        "eventVersion": "2.1", "eventName": name,
        "s3": {"bucket": {"name": event.bucket}, "object": fields},
    }  # fmt: skip
    return json.dumps({"Records": [record]})


def _parse(document: Any, *, depth: int) -> ParsedMessage:
    if not isinstance(document, dict):
        raise _Anomaly("not_an_event")
    if document.get("schema") == BACKFILL_SCHEMA:
        return ParsedMessage(records=_backfill(document))
    if isinstance(document.get("Records"), list):
        return _s3_records(document["Records"])
    if document.get("source") == "aws.s3" and "detail" in document:
        return ParsedMessage(records=(_eventbridge(document),))
    if isinstance(document.get("Message"), str) and document.get("Type") == "Notification":
        if depth >= _MAX_ENVELOPES:
            raise _Anomaly("nested_too_deep")
        return _parse(json.loads(document["Message"]), depth=depth + 1)
    if document.get("Event") == "s3:TestEvent":
        return ParsedMessage()  # S3 sends it when notifications are set up; it concerns no object
    raise _Anomaly("not_an_event")


def _s3_records(records: list[Any]) -> ParsedMessage:
    sound: list[ObjectEvent] = []
    anomaly = None if records else "no_records"
    for record in records:
        try:
            sound.append(_s3_record(record))
        except _Anomaly as found:
            anomaly = anomaly or str(found)
    return ParsedMessage(records=tuple(sound), anomaly=anomaly)


def _s3_record(record: Any) -> ObjectEvent:
    name = _text(record, "eventName").removeprefix("s3:")
    if not _text(record, "eventVersion", "2.0").startswith("2."):
        raise _Anomaly("unknown_event_version")
    details = _mapping(record, "s3")
    entity = _mapping(details, "object")
    bucket = _bucket(_text(_mapping(details, "bucket"), "name"))
    key = _key(_decode_key(_text(entity, "key")))
    version_id = _version_id(entity.get("versionId"))
    etag, sequencer = _etag(entity.get("eTag")), _sequencer(entity.get("sequencer"))
    if name.startswith("ObjectCreated:") or name == "ObjectRestore:Completed":
        return ObjectCreated(
            bucket, key, version_id=version_id, etag=etag,
            size_bytes=_size(entity.get("size")), sequencer=sequencer,
        )  # fmt: skip
    kind, _, action = name.partition(":")
    if kind in ("ObjectRemoved", "LifecycleExpiration"):
        if action not in ("Delete", "DeleteMarkerCreated"):
            raise _Anomaly("unknown_event_name")
        return ObjectRemoved(
            bucket, key, version_id=version_id, etag=etag, sequencer=sequencer,
            delete_marker=action == "DeleteMarkerCreated", expired=kind == "LifecycleExpiration",
        )  # fmt: skip
    raise _Anomaly("unknown_event_name")


def _eventbridge(document: dict[str, Any]) -> ObjectEvent:
    detail = _mapping(document, "detail")
    entity = _mapping(detail, "object")
    bucket = _bucket(_text(_mapping(detail, "bucket"), "name"))
    key = _key(_text(entity, "key"))  # raw: EventBridge does not URL-encode it
    version_id = _version_id(entity.get("version-id"))
    etag, sequencer = _etag(entity.get("etag")), _sequencer(entity.get("sequencer"))
    match document.get("detail-type"):
        case "Object Created" | "Object Restore Completed":
            return ObjectCreated(
                bucket, key, version_id=version_id, etag=etag,
                size_bytes=_size(entity.get("size")), sequencer=sequencer,
            )  # fmt: skip
        case "Object Deleted":
            return ObjectRemoved(
                bucket, key, version_id=version_id, etag=etag, sequencer=sequencer,
                delete_marker=detail.get("deletion-type") == "Delete Marker Created",
                expired=detail.get("reason") == "Lifecycle Expiration",
            )  # fmt: skip
        case _:
            raise _Anomaly("unknown_event_name")


def _backfill(document: dict[str, Any]) -> tuple[ObjectEvent, ...]:
    try:
        backfill = Backfill.model_validate(document)
    except ValidationError as exc:
        raise _Anomaly("bad_backfill") from exc
    bucket = _bucket(backfill.bucket)
    return tuple(
        ObjectRemoved(
            bucket, _key(item.key), _version_id(item.version_id), _etag(item.etag),
            delete_marker=item.delete_marker,
        )
        if item.removed
        else ObjectCreated(
            bucket, _key(item.key), _version_id(item.version_id), _etag(item.etag),
            _size(item.size_bytes),
        )
        for item in backfill.objects
    )  # fmt: skip


def _mapping(parent: Any, name: str) -> dict[str, Any]:
    value = parent.get(name) if isinstance(parent, dict) else None
    if not isinstance(value, dict):
        raise _Anomaly(f"missing_{name}")
    return value


def _text(parent: Any, name: str, default: str | None = None) -> str:
    value = parent.get(name, default) if isinstance(parent, dict) else None
    if not isinstance(value, str):
        raise _Anomaly(f"missing_{name}")
    return value


def _bucket(name: str) -> str:
    if not _BUCKET.fullmatch(name):
        raise _Anomaly("bad_bucket")
    return name


def _decode_key(encoded: str) -> str:
    """Undo S3's form encoding, once: ``+`` is a space, ``%2B`` a plus, ``%25`` a percent sign."""
    try:
        return unquote_plus(encoded, errors="strict")
    except UnicodeDecodeError as exc:
        raise _Anomaly("bad_key") from exc


def _key(key: str) -> str:
    """``key`` if S3 could have it and PostgreSQL can store it."""
    try:
        size = len(key.encode("utf-8"))  # a lone surrogate from JSON fails here
    except UnicodeEncodeError as exc:
        raise _Anomaly("bad_key") from exc
    if not 0 < size <= MAX_KEY_BYTES or "\0" in key:
        raise _Anomaly("bad_key")
    return key


def _version_id(value: Any) -> str | None:
    """None for ``null`` as well: a suspended bucket overwrites that version in place."""
    if value in (None, "", "null"):
        return None
    if not isinstance(value, str) or not value.isascii() or not value.isprintable():
        raise _Anomaly("bad_version_id")
    if len(value) > 1024:
        raise _Anomaly("bad_version_id")
    return value


def _etag(value: Any) -> str | None:
    if not isinstance(value, str) or not value.isascii() or not value.isprintable():
        return None
    return value.strip('"')[:256] or None


def _sequencer(value: Any) -> str | None:
    return value if isinstance(value, str) and _SEQUENCER.fullmatch(value) else None


def _size(value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        return None
    return value
