"""Curate a folder of pictures: judge what is new, choose, and write report, manifest and links.

The whole of ``pixsift curate`` and of ``pixsift.curate``: an embedded ledger, the consumer's stages
fed by a lister, and the same selection and snapshots as elsewhere in pixsift.
"""

import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

from aws_lambda_powertools import Logger
from pydantic import ValidationError

from pixsift.adapters.decode.pool import DecoderPool
from pixsift.adapters.ledger.collections import Collections
from pixsift.adapters.ledger.curation import FolderRows
from pixsift.adapters.ledger.ledger import Ledger
from pixsift.adapters.ledger.snapshots import Snapshots
from pixsift.adapters.local.folder_ledger import FolderLedger
from pixsift.adapters.local.folder_objects import PATIENCE_SECONDS, FolderObjects
from pixsift.adapters.local.link_copier import LinkCopier, LinkMode
from pixsift.adapters.local.patience import Patience
from pixsift.adapters.postgres.database import Database
from pixsift.core import presets
from pixsift.core.collection import Collection
from pixsift.core.files import folder_bucket
from pixsift.core.identity import location
from pixsift.core.manifest import build_metadata
from pixsift.core.manifest_rows import ManifestRow
from pixsift.core.sources import SourceRule
from pixsift.errors import (
    ConflictError,
    DependencyDownError,
    NotFoundError,
    Remedy,
    RequestError,
    TransientError,
)
from pixsift.messages import SnapshotRequest, parse_snapshot_request, why_not_storable
from pixsift.operations.collections import SIDECARS, create, threshold
from pixsift.operations.embedder import ModelChoice, load, load_for
from pixsift.operations.folder_output import (
    Output,
    OutputCounts,
    Report,
    check_output,
    claim_output,
    write_manifest,
    writing,
)
from pixsift.operations.judge_folder import FolderParts, FolderTally, judge_folder
from pixsift.operations.resolve import resolve
from pixsift.pages.curated import CuratedFolder
from pixsift.ports import Embedder
from pixsift.telemetry import Telemetry
from pixsift.words import REASON_WORDS

KEY_PATTERN: Final = r"^(?:(?P<folder>.*)/)?[^/]+$"
"""The first folder below the curated one: photographs are usually sorted by it."""
_LEASE_SECONDS = 5.0
ACTOR: Final = "curate"


@dataclass(frozen=True, slots=True)
class Wishes:
    """What is asked for in addition to judging."""

    out: Path | None = None
    """Where report, manifest and the chosen go; None: nothing is written."""
    select: Mapping[str, Any] | None = None
    """``select`` of a snapshot request; None: nothing is chosen."""
    where: Mapping[str, Any] = field(default_factory=dict)
    split: Mapping[str, Any] = field(default_factory=dict)
    preset: str | None = None
    """Which changes count; None: as before, or the default."""
    key_pattern: str | None = None
    """The pattern that reads attributes from paths; None: as before, or ``KEY_PATTERN``."""
    link: LinkMode = "hard"


@dataclass(slots=True)
class Curated:
    """The result for the folder."""

    folder: Path
    collection: str
    ledger: Path
    tally: FolderTally
    counts: OutputCounts = field(default_factory=OutputCounts)
    chosen: list[ManifestRow] = field(default_factory=list)
    snapshot_id: str | None = None
    report: dict[str, Any] = field(default_factory=dict)
    """Of the selection."""
    changed: list[str] = field(default_factory=list)
    """Chosen files that changed since they were judged, and were left out."""
    out: Path | None = None
    page: Path | None = None


Say = Callable[[str], None]
Progress = Callable[[FolderTally], None]


@dataclass(frozen=True, slots=True, eq=False)
class Tools:
    """Everything that the work needs; an entry point creates it."""

    model: ModelChoice
    logger: Logger
    workers: int = 2
    """Decoder processes."""
    in_flight: int = 128
    """Files worked on at any time; a stop finishes these."""
    say: Say = lambda step: None
    """Called with the step that begins."""
    progress: Progress = lambda tally: None
    next_steps: Callable[[Path], Sequence[str]] = lambda folder: ()
    """Next steps for the report, in the words of the entry point."""


def source_folder(folder: Path) -> Path:
    """The folder with its links resolved.

    Raises NotFoundError or RequestError, and DependencyDownError where the file system hangs.
    """

    def look() -> Path:
        found = folder.resolve(strict=True)
        os.scandir(found).close()
        return found

    try:
        found = Patience(PATIENCE_SECONDS).call(str(folder), look)
    except TransientError as error:
        raise DependencyDownError(
            f"{error}: does the share answer that the folder is on?"
        ) from error
    except NotADirectoryError:
        raise RequestError(f"{folder} is a file: name the folder with the images") from None
    except OSError as error:
        raise NotFoundError(f"the folder {folder} cannot be read: {error.strerror}") from error
    if found == found.parent:
        raise RequestError("choose a folder below the root of the file system")
    return found


def collection_of(database: Database, folder: Path) -> Collection | None:
    """The collection of a folder's pictures; None before the first run."""
    bucket = folder_bucket(str(folder))
    for known in Collections(database).collections():
        if any(rule.bucket == bucket for rule in known.sources):
            return known
    return None


def curate(
    folder: Path, store: FolderLedger, wishes: Wishes, tools: Tools, stop: threading.Event
) -> Curated:
    """Judge what is new in ``folder``, choose, and write the output.

    Ends early, with ``tally.stopped``, when ``stop`` is set; the ledger stays usable, and the next
    run goes on. Raises UserError for what cannot be done, DependencyDownError when the disk, the
    folder or the ledger fails.
    """
    folder = source_folder(folder)
    out = wishes.out and wishes.out.absolute()
    if out is not None:
        out = out.resolve()
        check_output(out, folder)
    if store.root.resolve().is_relative_to(folder):
        raise ConflictError(
            f"the ledger {store.root} lies in the folder of the originals, which is never "
            "written to", remedy=Remedy("name_ledger"),
        )  # fmt: skip
    _check_request(wishes)
    with _opened(store, tools) as (database, parts):
        found = _collection(database, folder, wishes, tools.model)
        load_for(tools.model, found)
        tools.say("judging")
        bucket = folder_bucket(str(folder))
        tally = judge_folder(parts, found, bucket, stop=stop, report=tools.progress)
        result = Curated(folder, found.name, store.root, tally)
        if tally.stopped:
            return result
        if not tally.total:
            raise RequestError(_nothing_there(folder, tally), code="no_images")
        found = Collections(database).collection(found.name)
        rows = FolderRows(database, found.collection_id)
        if not any(True for _ in rows.files()):
            raise RequestError(_nothing_there(folder, tally), code="no_images")
        if wishes.select is not None:
            tools.say("choosing")
            _choose(database, found, wishes, result)
        if out is not None:
            tools.say("writing the output")
            output = Output(out, bucket, rows, parts.objects, parts.derived_bucket)
            _Writer(output, Snapshots(database), wishes, tools, result).write(stop)
        else:
            _count(rows, result)
    return result


@contextmanager
def _opened(store: FolderLedger, tools: Tools) -> Iterator[tuple[Database, FolderParts]]:
    tools.say("loading the model")
    embedder: Embedder = load(tools.model)
    tools.say("opening the ledger")
    with (
        store as opened,
        opened.judging(),
        Database(opened.url, max_connections=8, session={"statement_timeout": "10min"}) as database,
        DecoderPool(embedder.input_side, workers=tools.workers) as decoder,
    ):
        ledger = Ledger(database, actor=ACTOR)
        ledger.ensure_space(embedder.space)
        yield (
            database,
            FolderParts(
                database=database,
                ledger=ledger,
                objects=FolderObjects(),
                decoder=decoder,
                embedder=embedder,
                derived_bucket=folder_bucket(str(opened.derived)),
                logger=tools.logger,
                telemetry=Telemetry("pixsift-curate"),
                in_flight=tools.in_flight,
            ),
        )


def _collection(database: Database, folder: Path, wishes: Wishes, model: ModelChoice) -> Collection:
    found = collection_of(database, folder)
    if found is not None:
        _check_same_rule(found, wishes, model)
        return found
    chosen = threshold(model, preset=wishes.preset or presets.DEFAULT)
    return create(
        database, _name(folder), chosen,
        sources=[SourceRule(folder_bucket(str(folder)), exclude=SIDECARS)],
        key_pattern=KEY_PATTERN if wishes.key_pattern is None else wishes.key_pattern,
        actor=ACTOR,
    )  # fmt: skip


def _check_same_rule(found: Collection, wishes: Wishes, model: ModelChoice) -> None:
    """Raises ConflictError for another rule than the collection's: decisions by two rules must not
    mix."""
    if wishes.key_pattern not in (None, found.key_pattern):
        raise ConflictError(
            f"collection {found.name} reads paths by another pattern, {found.key_pattern!r}",
            code="other_rule",
        )
    if wishes.preset is None:
        return
    wanted = threshold(model, preset=wishes.preset)
    if (wanted.epsilon, wanted.second_look) != (found.epsilon, found.second_look):
        raise ConflictError(
            f"the pictures were judged by another rule than preset {wishes.preset}",
            code="other_rule",
            remedy=Remedy("redecide", {"collection": found.name, "preset": wishes.preset}),
        )


def _name(folder: Path) -> str:
    """A name for the folder's collection: its own as far as names allow, and a mark of its path."""
    plain = re.sub(r"[^a-z0-9._-]+", "-", folder.name.lower()).strip("-._")[:48] or "folder"
    return f"{plain}-{sha256(os.fsencode(folder)).hexdigest()[:8]}"


def _nothing_there(folder: Path, tally: FolderTally) -> str:
    hidden = tally.walked.unreadable
    unreadable = f"; cannot be listed: {hidden[0]}" if hidden else ""
    if not tally.total:
        return f"{folder} has no files{unreadable}"
    return f"{folder} has no images: {tally.total} files, none of them a picture{unreadable}"


def _request(wishes: Wishes, collection: str) -> SnapshotRequest:
    raw = {
        "schema": "pixsift.snapshot-request/2", "request_id": f"curate-{uuid4().hex}",
        "collection": collection, "name": "curated", "select": dict(wishes.select or {}),
        "where": dict(wishes.where), "split": dict(wishes.split),
    }  # fmt: skip
    if (obstacle := why_not_storable(raw)) is not None:
        raise RequestError(f"the request {obstacle}")
    try:
        return parse_snapshot_request(raw)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in problem["loc"])
        raise RequestError(f"{place or 'request'}: {problem['msg']}") from error


def _check_request(wishes: Wishes) -> None:
    """Check the wishes first, before an hour of decoding."""
    if wishes.select is not None:
        _request(wishes, "folder")
    if wishes.preset is not None and wishes.preset not in presets.PRESETS:
        raise RequestError(
            f"no preset {wishes.preset!r}: there are {', '.join(presets.PRESETS)}",
            code="unknown_preset",
        )


def _choose(database: Database, found: Collection, wishes: Wishes, result: Curated) -> None:
    request = _request(wishes, found.name)
    snapshots = Snapshots(database)
    taken = snapshots.take(
        request_id=request.request_id, collection=found.name, at_seq=None,
        body=request.model_dump(mode="json", by_alias=True),
    )  # fmt: skip
    if taken is None:
        raise NotFoundError(f"collection {found.name} was deleted meanwhile")
    result.snapshot_id = resolve(database, taken, request, spill_dir=None)
    result.chosen = snapshots.manifest_rows(result.snapshot_id)
    result.report = snapshots.get(result.snapshot_id).report


@dataclass(frozen=True, slots=True, eq=False)
class _Writer:
    """Fills the output folder."""

    output: Output
    snapshots: Snapshots
    wishes: Wishes
    tools: Tools
    result: Curated

    def write(self, stop: threading.Event) -> None:
        result, output = self.result, self.output
        claim_output(output.folder, result.folder)
        result.out = output.folder
        self._bring(stop)
        result.counts = write_manifest(output, result.chosen)
        page = _page(result, self.tools)
        result.page = Report(output).write(page, result.counts, result.chosen)

    def _bring(self, stop: threading.Event) -> None:
        """``data/``: written under another name, then moved into place of an earlier choice."""
        new, final = self.output.folder / "data.new", self.output.folder / "data"
        with writing(self.output.folder):
            shutil.rmtree(new, ignore_errors=True)
            if self.result.snapshot_id is not None:
                self._link(self.result.snapshot_id, new, stop)
            if final.is_symlink():
                raise ConflictError(f"{final} is a link: delete it", remedy=Remedy("name_output"))
            shutil.rmtree(final, ignore_errors=True)
            if new.exists():
                new.rename(final)

    def _link(self, snapshot_id: str, new: Path, stop: threading.Event) -> None:
        result = self.result
        items = [
            replace(item, destination_key=item.destination_key.removeprefix("data/"))
            for item in self.snapshots.items(snapshot_id, everything=True)
        ]
        copier = LinkCopier(self.output.objects, new, self.wishes.link)
        copied = {}
        for done in copier.copy(items, prefix="", stop=stop):
            if done.failure:
                result.changed.append(done.item.source.key)
            else:
                copied[done.item.rank] = done.checksum
        result.chosen = [row for row in result.chosen if row.rank in copied]
        for split in sorted({row.split for row in result.chosen}):
            table = build_metadata(result.chosen, split)
            (new / split / "metadata.parquet").write_bytes(table)
        fence = self.snapshots.claim(snapshot_id, lease_seconds=_LEASE_SECONDS)
        if fence is not None and not result.changed and not stop.is_set():
            self.snapshots.mark_copied(snapshot_id, fence, copied)
            where = location(folder_bucket(str(self.output.folder)), "")
            self.snapshots.publish(snapshot_id, fence, location=where)


def _count(rows: FolderRows, result: Curated) -> None:
    for row in rows.files():
        result.counts.outcomes[row.outcome, row.reason] += 1
        result.counts.flags.update(row.flags)


def facts(result: Curated) -> list[str]:
    """Lines that say what was done, for a page or a terminal."""
    tally = result.tally
    lines = [
        f"{tally.total:,} files: {tally.judged:,} judged now, {tally.unchanged:,} known from "
        f"before, {tally.ignored:,} ignored (not images)"
    ]
    if tally.removed:
        lines.append(f"{tally.removed:,} pictures are no longer there")
    if tally.undecided:
        lines.append(f"{tally.undecided:,} files have no outcome yet: run again")
    walked = tally.walked
    passed = {"links that lead elsewhere": walked.links, "hidden folders": walked.hidden,
              "pipes and devices": walked.special}  # fmt: skip
    if any(passed.values()):
        counted = ", ".join(f"{count:,} {name}" for name, count in passed.items() if count)
        lines.append(f"passed over: {counted}")
    lines += [f"cannot be listed: {each}" for each in walked.unreadable[:5]]
    if result.snapshot_id is not None:
        lines.append(_choice(result))
    if result.changed:
        lines.append(
            f"{len(result.changed):,} chosen files changed meanwhile and were left out: run again"
        )
    return lines


def _choice(result: Curated) -> str:
    report = result.report
    line = (
        f"{len(result.chosen):,} chosen of {report.get('candidates', 0):,} candidates (kept and "
        f"not flagged) by strategy {report.get('strategy', '')}"
    )
    coverage = report.get("coverage") or {}
    if {"selection", "random"} <= coverage.keys():
        chosen, random = coverage["selection"], coverage["random"]
        line += (
            f"; mean distance of every picture to its nearest chosen one "
            f"{chosen['mean_distance']:.3f}, by a random choice {random['mean_distance']:.3f}"
        )
    return line


def outcome_lines(counts: OutputCounts) -> list[tuple[str, str, str]]:
    """Outcome, reason in words, how many: the outcomes in the order in which people read them."""
    order = ("kept", "duplicate", "rejected", "failed")
    return [
        (outcome, REASON_WORDS.get(reason, reason.replace("_", " ")), f"{count:,}")
        for (outcome, reason), count in sorted(
            counts.outcomes.items(), key=lambda each: (order.index(each[0][0]), -each[1])
        )
    ]


def _page(result: Curated, tools: Tools) -> CuratedFolder:
    return CuratedFolder(
        title=f"What pixsift made of {result.folder.name}",
        facts=[str(result.folder), *facts(result)],
        outcomes=outcome_lines(result.counts),
        flags=dict(result.counts.flags.most_common()),
        next_steps=tools.next_steps(result.folder),
    )
