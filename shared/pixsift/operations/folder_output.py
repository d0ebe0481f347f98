"""Writes the output folder of ``curate``: report, manifest, and the chosen pictures. The folder
belongs to pixsift: it was created by it, or was empty. A note in it says so, and no other file is
ever overwritten; nothing is written to the folder of the originals. Files are written under a
temporary name and renamed, and every run writes them again.
"""

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from pixsift.adapters.ledger.curation import DuplicateOf, FileRow, FolderRows
from pixsift.adapters.local.folder_objects import FolderObjects
from pixsift.core.files import path_in
from pixsift.core.manifest_rows import ManifestRow
from pixsift.errors import ConflictError, PixsiftError, Remedy, RequestError
from pixsift.pages.curated import Chapter, CuratedFolder, Group, curated_page, part_page
from pixsift.pages.pictures import Picture
from pixsift.words import REASON_WORDS

NOTE: Final = ".pixsift-output.json"
_PER_PAGE = 200
_FIRST = 24
_FIRST_GROUPS = 8
_REPEATS_SHOWN = 12
_ROWS_AT_ONCE = 2000
SCHEMA = pa.schema([
    ("path", pa.string()), ("outcome", pa.string()), ("reason", pa.string()),
    ("repeats", pa.string()), ("distance", pa.float64()), ("flags", pa.string()),
    ("message", pa.string()), ("format", pa.string()), ("width", pa.int32()),
    ("height", pa.int32()), ("size_bytes", pa.int64()), ("captured_at", pa.timestamp("us", "UTC")),
    ("sha256", pa.string()), ("rank", pa.int32()), ("split", pa.string()),
    ("chosen_as", pa.string()),
])  # fmt: skip
"""``manifest.parquet`` and ``.csv``: one row per file. ``repeats``: what a duplicate repeats;
``rank``, ``split``, ``chosen_as``: of a chosen file, the last below the output folder."""


@dataclass(slots=True)
class OutputCounts:
    """Counts made while the manifest was written."""

    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(Outcome, reason code) -> files."""
    flags: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True, eq=False)
class Output:
    """The output folder, and what it describes."""

    folder: Path
    bucket: str
    """Of the originals."""
    rows: FolderRows
    objects: FolderObjects
    derived_bucket: str
    """Where thumbnails are."""


def default_output(folder: Path) -> Path:
    """Next to the pictures: ``photos-curated``."""
    return folder.parent / f"{folder.name}-curated"


def check_output(out: Path, folder: Path) -> None:
    """Raise ConflictError unless ``out`` may be written: ours, empty or new, and not in ``folder``.

    folder, out: with links resolved.
    """
    if out == folder or out.is_relative_to(folder):
        raise ConflictError(
            f"the output {out} lies in the folder of the originals, {folder}, which is never "
            "written to", code="output_in_folder", remedy=Remedy("name_output"),
        )  # fmt: skip
    try:
        if not out.exists():
            return
        if not out.is_dir():
            raise ConflictError(f"the output {out} is a file", remedy=Remedy("name_output"))
        note = out / NOTE
        if note.is_file():
            owner = json.loads(note.read_text("utf-8", "replace")).get("folder")
            if owner == os.fsencode(folder).decode("utf-8", "backslashreplace"):
                return
            raise ConflictError(
                f"{out} holds the output for another folder, {owner}", remedy=Remedy("name_output")
            )
        if any(out.iterdir()):
            raise ConflictError(
                f"{out} holds files that pixsift did not make, and they stay as they are",
                code="foreign_output", remedy=Remedy("name_output"),
            )  # fmt: skip
    except (OSError, ValueError, AttributeError) as error:
        raise ConflictError(
            f"the output {out} cannot be used: {error}", remedy=Remedy("name_output")
        ) from error


def claim_output(out: Path, folder: Path) -> None:
    """Make ``out`` pixsift's own. Raises as ``check_output``."""
    check_output(out, folder)
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        named = os.fsencode(folder).decode("utf-8", "backslashreplace")
        text = json.dumps({"made by": "pixsift", "folder": named}, indent=1)
        (out / NOTE).write_text(text + "\n", "utf-8")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raise what the file system refuses as RequestError."""
    try:
        yield
    except OSError as error:
        where = error.filename or path
        raise RequestError(
            f"cannot write {str(where)!r}: {error.strerror}",
            code="cannot_write", remedy=Remedy("name_output"),
        ) from error  # fmt: skip


def write_manifest(output: Output, chosen: Sequence[ManifestRow]) -> OutputCounts:
    """``manifest.parquet`` and ``manifest.csv``: every file with its outcome and the reason."""
    by_key = {row.source.key: row for row in chosen}
    counts = OutputCounts()
    parquet, table = output.folder / "manifest.parquet", output.folder / "manifest.csv"
    with (
        writing(output.folder),
        _beside(parquet) as first,
        _beside(table) as second,
        pq.ParquetWriter(first, SCHEMA) as as_parquet,
        pyarrow.csv.CSVWriter(second, SCHEMA) as as_csv,
    ):
        for some in _batches(output.rows.files()):
            batch = pa.RecordBatch.from_pylist(
                [record(row, by_key.get(row.key)) for row in some], schema=SCHEMA
            )
            as_parquet.write_batch(batch)
            as_csv.write_batch(batch)
            for row in some:
                counts.outcomes[row.outcome, row.reason] += 1
                counts.flags.update(row.flags)
    return counts


class Report:
    """Writes ``report.html`` and the pages of every picture below ``report/``."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._new = output.folder / "report.new"

    def write(
        self, page: CuratedFolder, counts: OutputCounts, chosen: Sequence[ManifestRow]
    ) -> Path:
        """The report's path. page: without its chapters."""
        final, path = self._output.folder / "report", self._output.folder / "report.html"
        with writing(self._output.folder):
            shutil.rmtree(self._new, ignore_errors=True)
            (self._new / "thumbnails").mkdir(parents=True)
            chapters = list(self._chapters(counts, chosen))
            text = curated_page(
                CuratedFolder(page.title, page.facts, page.outcomes, page.flags, chapters,
                              page.next_steps)
            )  # fmt: skip
            shutil.rmtree(final, ignore_errors=True)
            self._new.rename(final)
            beside = path.with_suffix(".new")
            beside.write_text(text, "utf-8", "backslashreplace")
            beside.replace(path)
        return path

    def _chapters(self, counts: OutputCounts, chosen: Sequence[ManifestRow]) -> Iterator[Chapter]:
        rows = self._output.rows
        if chosen:
            yield self._pictures("chosen", f"Chosen: {len(chosen):,}",
                                 "In the order of their choice.", self._chosen(chosen))  # fmt: skip
        repeated = sum(n for (outcome, _), n in counts.outcomes.items() if outcome == "duplicate")
        if repeated:
            yield self._groups(f"Duplicates: {repeated:,}")
        for name, title, text, found in (
            ("flagged", "Flagged", "Kept or not, these are worth a look.",
             rows.files(flagged=True)),
            ("rejected", "Rejected", "They show nothing, or cannot be read.",
             rows.files(outcome="rejected")),
            ("failed", "Failed", "These have no outcome yet: the next run tries them again.",
             rows.files(outcome="failed")),
            ("kept", "Kept", "Every picture that repeats no other.", rows.files(outcome="kept")),
        ):  # fmt: skip
            yield self._pictures(name, title, text, (self._file(row) for row in found))

    def _pictures(self, name: str, title: str, text: str, pictures: Iterator[Picture]) -> Chapter:
        first, pages = self._pages(
            name, title, pictures, lambda some: {"pictures": some}, first=_FIRST, size=_PER_PAGE
        )
        return Chapter(title, text, pictures=_from_top(first), pages=pages)

    def _groups(self, title: str) -> Chapter:
        first, pages = self._pages(
            "duplicates", title, self._grouped(), lambda some: {"grouped": some},
            first=_FIRST_GROUPS, size=_PER_PAGE // 4,
        )  # fmt: skip
        shown = [(_from_top([lead])[0], _from_top(rest)) for lead, rest in first]
        text = "On the left what was kept, next to it what repeats it."
        return Chapter(title, text, groups=shown, pages=pages)

    def _pages(
        self,
        name: str,
        title: str,
        items: Iterator[Any],
        part: Callable[[Sequence[Any]], dict[str, Any]],
        *,
        first: int,
        size: int,
    ) -> tuple[list[Any], list[tuple[str, str]]]:
        """The first items, and links to the pages that hold all of them."""
        shown: list[Any] = []
        pages: list[tuple[str, str]] = []
        following = list(islice(items, size))
        while following:
            some, following = following, list(islice(items, size))
            number = len(pages) + 1
            shown = shown or list(some[:first])
            around = [("../report.html", "first page")]
            around += [(f"{name}-{number - 1}.html", "previous")] if number > 1 else []
            around += [(f"{name}-{number + 1}.html", "next")] if following else []
            text = part_page(title, [f"page {number}"], around=around, **part(some))
            (self._new / f"{name}-{number}.html").write_text(text, "utf-8", "backslashreplace")
            pages.append((f"report/{name}-{number}.html", f"page {number}"))
        if len(pages) == 1:
            pages = [(pages[0][0], "all of them")]
        return shown, pages

    def _grouped(self) -> Iterator[Group]:
        for some in _batches(self._output.rows.files(with_duplicates=True), size=_PER_PAGE):
            repeats = self._output.rows.duplicates_of(
                [row.object_id for row in some], most=_REPEATS_SHOWN
            )
            for row in some:
                found = repeats.get(row.object_id, [])
                shown = [self._repeat(each) for each in found]
                if more := found[0].in_all - len(found) if found else 0:
                    shown.append(Picture.file(None, f"and {more:,} more"))
                yield self._file(row), shown

    def _repeat(self, row: DuplicateOf) -> Picture:
        why = _why("near" if row.reason == "near_look" else row.reason)
        distance = "" if row.distance is None else f", distance {row.distance:.3f}"
        return Picture.file(self._thumbnail(row.thumbnail_key), row.key, f"{why}{distance}")

    def _file(self, row: FileRow) -> Picture:
        why = _why(row.reason) if row.outcome != "kept" else ""
        flags = "flagged: " + ", ".join(f.replace("_", " ") for f in row.flags) if row.flags else ""
        lines = [line for line in (why, row.message, flags) if line]
        return Picture.file(self._thumbnail(row.thumbnail_key), row.key, *lines)

    def _chosen(self, chosen: Sequence[ManifestRow]) -> Iterator[Picture]:
        wanted = {row.source.key: row for row in chosen}
        shown = {row.key: row for row in self._output.rows.files(outcome="kept")
                 if row.key in wanted}  # fmt: skip
        for row in chosen:
            there = shown.get(row.source.key)
            picture = None if there is None else self._thumbnail(there.thumbnail_key)
            stands = f", stands for {row.duplicates} more" if row.duplicates else ""
            yield Picture.file(picture, row.source.key, f"{row.rank}, {row.split}{stands}")

    def _thumbnail(self, key: str | None) -> str | None:
        """Of a page in ``report/``; the thumbnail is linked to, or copied."""
        if key is None:
            return None
        name = key.rsplit("/", 1)[-1]
        relative = f"thumbnails/{name[:2]}/{name}"
        target = self._new / relative
        if target.exists():
            return relative
        target.parent.mkdir(exist_ok=True)
        source = path_in(self._output.derived_bucket, key)
        try:
            os.link(source, target)
        except OSError:
            with suppress(PixsiftError):
                target.write_bytes(self._output.objects.read(self._output.derived_bucket, key))
        return relative if target.exists() else None


def _from_top(pictures: Sequence[Picture]) -> list[Picture]:
    """As the first page, which lies above the others, refers to them."""
    return [
        Picture(None if p.source is None else f"report/{p.source}", p.caption) for p in pictures
    ]


def _why(reason: str) -> str:
    return REASON_WORDS.get(reason, reason.replace("_", " "))


def record(row: FileRow, chosen: ManifestRow | None) -> dict[str, Any]:
    """A row of the manifest. chosen: where it is in the selection."""
    facts = row.image_facts or {}
    return {
        "path": row.key, "outcome": row.outcome, "reason": row.reason,
        "repeats": row.representative, "distance": row.distance, "flags": ",".join(row.flags),
        "message": row.message, "format": facts.get("format"), "width": facts.get("width"),
        "height": facts.get("height"), "size_bytes": row.size_bytes,
        "captured_at": row.captured_at, "sha256": row.content_sha256,
        "rank": chosen.rank if chosen else None, "split": chosen.split if chosen else None,
        "chosen_as": chosen.path if chosen else None,
    }  # fmt: skip


def _batches(rows: Iterator[FileRow], *, size: int = _ROWS_AT_ONCE) -> Iterator[list[FileRow]]:
    while some := list(islice(rows, size)):
        yield some


@contextmanager
def _beside(path: Path) -> Iterator[str]:
    """A path to write to; it replaces ``path`` when the block has ended."""
    beside = path.with_name(path.name + ".new")
    yield str(beside)
    beside.replace(path)
