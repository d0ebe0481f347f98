"""A journal in a bucket: small objects that are only ever added, ordered by time.

It holds what a ledger must not forget when it is restored to an earlier time: erasures, rulings,
revoked tokens. Such a promise is written here before success is reported. Only an erasure changes
an entry: it removes the reasons that people gave for rulings about the image.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from pixsift.adapters.aws.s3 import S3Objects
from pixsift.errors import DependencyDownError

PREFIX = ".pixsift/obligations/"
"""Of no snapshot: names of snapshots begin with a letter or a digit."""
SCHEMA = "pixsift.obligation/1"


@dataclass(frozen=True, slots=True)
class Obligation:
    """One entry: its key, what kind of obligation it is, and its facts."""

    key: str
    kind: str
    facts: Mapping[str, Any]


class Journal:
    """The entries under one prefix of a bucket."""

    def __init__(self, objects: S3Objects, bucket: str) -> None:
        self._objects = objects
        self.bucket = bucket

    @property
    def place(self) -> str:
        """Its URI, for messages."""
        return f"s3://{self.bucket}/{PREFIX}"

    def write(
        self,
        kind: str,
        facts: Mapping[str, Any],
        *,
        now: datetime | None = None,
        mark: str | None = None,
    ) -> str:
        """Add an entry; its key. Raises what S3 answers (TransientError, DependencyDownError, ...);
        then nothing was written, or an entry that its writer does not know of.

        now, mark: make up the key; an entry that is there already stays as it is. None: a new one.
        """
        at = (now or datetime.now(UTC)).astimezone(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        key = f"{PREFIX}{at}-{mark or uuid4().hex[:12]}.json"
        self._objects.put(
            self.bucket, key, _body(kind, facts), content_type="application/json",
            only_if_absent=True,
        )  # fmt: skip
        return key

    def write_again(self, key: str, kind: str, facts: Mapping[str, Any]) -> None:
        """Replace an entry by one that says less; its earlier versions are deleted."""
        earlier = self._objects.list_versions(self.bucket, key)
        self._objects.put(self.bucket, key, _body(kind, facts), content_type="application/json")
        for version in earlier:
            if version.version_id != "null":
                self._objects.delete(self.bucket, key, version_id=version.version_id)

    def entries(self, *, after: str = "") -> Iterator[str]:
        """Keys of the entries written after one, oldest first."""
        for listed in self._objects.iter_versions(self.bucket, PREFIX, after=after):
            if listed.is_latest and not listed.version.is_delete_marker:
                yield listed.key

    def read(self, key: str) -> Obligation:
        """One entry. Raises DependencyDownError for one that this release does not understand."""
        try:
            entry = json.loads(self._objects.read(self.bucket, key))
            if entry["schema"] != SCHEMA:
                raise ValueError(f"schema {entry['schema']!r}")
            return Obligation(key, str(entry["kind"]), dict(entry["facts"]))
        except (ValueError, TypeError, KeyError) as error:
            raise unreadable(self.bucket, key, str(error)) from error


def _body(kind: str, facts: Mapping[str, Any]) -> bytes:
    return json.dumps({"schema": SCHEMA, "kind": kind, "facts": facts}, default=str).encode()


def unreadable(bucket: str, key: str, why: str) -> DependencyDownError:
    """An entry that cannot be carried out: continuing without it would forget it, so nothing
    continues."""
    return DependencyDownError(
        f"s3://{bucket}/{key} is an obligation that this release cannot meet ({why}): "
        "upgrade, or remove the object if it was not written by pixsift",
        code="unknown_obligation",
    )
