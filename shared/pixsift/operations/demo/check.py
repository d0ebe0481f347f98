"""Compares the ledger with what the robots sent. Pure: values in, complaints out.

An empty list of complaints is the demo's proof; each complaint names the object and both sides.
"""

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence

from pixsift.core.outcomes import ObjectOutcome, SnapshotObject
from pixsift.operations.demo.robots import EXPECTED, DemoPlan, Upload

Sent = Mapping[str, str]
"""Key -> version id, as S3 gave it."""


def check_ledger(
    plan: DemoPlan, sent: Sent, rows: Sequence[ObjectOutcome], *, epsilon: float
) -> list[str]:
    """What is wrong with the ledger's ``rows``, given what was sent; empty when nothing is."""
    return [
        *_each_has_one_outcome(plan, sent, rows),
        *_outcomes_are_as_expected(plan, rows),
        *_nothing_else_is_known(plan, rows),
        *_equal_bytes_are_kept_once(rows),
        *_duplicates_name_kept_ones(rows, epsilon),
        *_contents_are_what_was_sent(plan, rows),
    ]


def check_snapshot(
    items: Sequence[SnapshotObject],
    rows: Sequence[ObjectOutcome],
    copies: Mapping[str, bytes],
    *,
    wanted: int,
) -> list[str]:
    """What is wrong with a snapshot.

    copies: destination key -> the bytes found there. wanted: how many images were asked for.
    """
    kept = {row.object_id for row in rows if row.outcome == "kept"}
    due = min(wanted, len(kept))
    complaints = []
    if len(items) != due:
        complaints.append(f"the snapshot holds {len(items)} images, {due} were due")
    for item in items:
        body = copies.get(item.destination_key)
        if item.object_id not in kept:
            complaints.append(f"the snapshot contains {item.key}, which is not kept")
        if body is None:
            complaints.append(f"the copy of {item.key} is missing at {item.destination_key}")
        elif hashlib.sha256(body).digest() != item.content_sha256:
            complaints.append(f"the copy of {item.key} has other bytes than the ledger's")
    return complaints


def is_complete(plan: DemoPlan, outcomes: Mapping[str, int]) -> bool:
    """Whether every object has an outcome and every deleted one is gone; outcome -> objects."""
    is_judged = sum(outcomes.values()) >= plan.judged
    return is_judged and outcomes.get("gone", 0) >= plan.count("deleted")


def _each_has_one_outcome(plan: DemoPlan, sent: Sent, rows: Sequence[ObjectOutcome]) -> list[str]:
    found: dict[tuple[str, str], int] = defaultdict(int)
    for row in rows:
        found[row.key, row.version_id] += 1
    due = [(u.key, sent.get(u.key, "")) for u in plan.uploads if u.kind != "sidecar"]
    return [f"{key}: {found[key, v]} outcomes, 1 was due" for key, v in due if found[key, v] != 1]


def _outcomes_are_as_expected(plan: DemoPlan, rows: Sequence[ObjectOutcome]) -> list[str]:
    uploads = {upload.key: upload for upload in plan.uploads}
    return [
        f"{row.key} ({uploads[row.key].kind}): {row.outcome}/{row.reason}, "
        f"expected {' or '.join(sorted(EXPECTED[uploads[row.key].kind] or ()))}"
        for row in rows
        if row.key in uploads and not _is_expected(uploads[row.key], row)
    ]


def _is_expected(upload: Upload, row: ObjectOutcome) -> bool:
    expected = EXPECTED[upload.kind]
    if expected is None:
        return True  # already reported as unknown to the ledger
    if not upload.surely_sound:
        return row.outcome != "failed"
    return f"{row.outcome}/*" in expected or f"{row.outcome}/{row.reason}" in expected


def _nothing_else_is_known(plan: DemoPlan, rows: Sequence[ObjectOutcome]) -> list[str]:
    due = {upload.key for upload in plan.uploads if EXPECTED[upload.kind] is not None}
    return [
        f"{row.key}: in the ledger, although excluded by the rules"
        for row in rows
        if row.key not in due
    ]


def _equal_bytes_are_kept_once(rows: Sequence[ObjectOutcome]) -> list[str]:
    kept: dict[bytes, list[str]] = defaultdict(list)
    for row in rows:
        if row.outcome == "kept" and row.content_sha256 is not None:
            kept[row.content_sha256].append(row.key)
    return [f"equal bytes are kept twice: {', '.join(k)}" for k in kept.values() if len(k) > 1]


def _duplicates_name_kept_ones(rows: Sequence[ObjectOutcome], epsilon: float) -> list[str]:
    by_id = {row.object_id: row for row in rows}
    complaints = []
    for row in rows:
        if row.outcome != "duplicate":
            continue
        representative = by_id.get(row.representative_object_id or -1)
        if representative is None or representative.outcome != "kept":
            complaints.append(f"{row.key}: its representative is not kept")
        if row.distance is not None and row.distance > epsilon:
            complaints.append(f"{row.key}: {row.distance:.4f} from its representative")
    return complaints


def _contents_are_what_was_sent(plan: DemoPlan, rows: Sequence[ObjectOutcome]) -> list[str]:
    """An image that was deleted at once may never have been read."""
    found = {row.key: row.content_sha256 for row in rows}
    return [
        f"{upload.key}: the ledger's content hash is not that of the bytes sent"
        for upload in plan.uploads
        if upload.kind not in ("sidecar", "deleted")
        and found.get(upload.key) not in (None, upload.sha256())
    ]
