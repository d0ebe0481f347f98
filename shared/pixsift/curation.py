"""pixsift as a library: ``pixsift.curate("photos", k=500)``.

A folder of pictures on this machine, the embedded ledger, no service. Everything else is in
``pixsift.operations``; what runs event-driven is in the services.
"""

import os
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
from aws_lambda_powertools import Logger

from pixsift.adapters.ledger.curation import FolderRows
from pixsift.adapters.local.folder_ledger import FolderLedger, default_ledger_folder
from pixsift.adapters.local.link_copier import LinkMode
from pixsift.adapters.postgres.database import Database
from pixsift.core.manifest_rows import ManifestRow
from pixsift.operations import curate as operation
from pixsift.operations.curate import Curated, Tools, Wishes
from pixsift.operations.embedder import ModelChoice
from pixsift.operations.folder_output import SCHEMA, record
from pixsift.operations.judge_folder import FolderTally

_LOGGED_ERRORS = 3
_BLAS_PATIENCE = ("OPENBLAS_THREAD_TIMEOUT", "4")
"""Between two small products OpenBLAS's threads would otherwise spin while other stages need the
core."""


@dataclass(frozen=True, slots=True, eq=False)
class Curation:
    """What became of a folder, as Arrow tables; ``.to_pandas()`` makes data frames of them.

    The columns are those of ``manifest.parquet``: path, outcome, reason, repeats, distance, flags,
    and more. Paths are below ``folder``.
    """

    folder: Path
    ledger: Path
    collection: str
    images: pa.Table
    """Every file that is an image, or looked like one."""
    selection: pa.Table
    """The chosen files, in the order of the choice; empty if no choice was asked for."""
    report: Mapping[str, Any]
    """Of the selection: strategy, candidates, coverage compared with a random choice."""
    output: Path | None
    """Where report and manifest are."""

    @property
    def kept(self) -> pa.Table:
        """Kept pictures."""
        return self._with("kept")

    @property
    def duplicates(self) -> pa.Table:
        """Pictures that repeat a kept picture, which ``repeats`` names."""
        return self._with("duplicate")

    @property
    def rejected(self) -> pa.Table:
        """Pictures that show nothing or cannot be read: ``reason`` says why."""
        return self._with("rejected")

    def __repr__(self) -> str:
        counts = ", ".join(
            f"{table.num_rows} {name}"
            for name, table in (("kept", self.kept), ("duplicates", self.duplicates),
                                ("rejected", self.rejected), ("chosen", self.selection))
        )  # fmt: skip
        return f"<Curation of {self.folder}: {counts}>"

    def _with(self, outcome: str) -> pa.Table:
        return self.images.filter(pa.compute.field("outcome") == outcome)


def curate(
    folder: str | os.PathLike[str],
    *,
    k: int | None = None,
    strategy: str | None = None,
    out: str | os.PathLike[str] | None = None,
    where: Mapping[str, Sequence[str]] | None = None,
    flagged: Literal["exclude", "include", "only"] = "exclude",
    split: Mapping[str, float] | None = None,
    seed: int = 0,
    preset: str | None = None,
    link: LinkMode = "hard",
    ledger: str | os.PathLike[str] | None = None,
    model: str = "efficientnet-lite0",
    progress: Callable[[FolderTally], None] = lambda tally: None,
) -> Curation:
    """Judge every picture of ``folder`` once, and choose ``k`` of the kept.

    k, strategy: see docs/selection.md; without either nothing is chosen. out: folder for report,
    manifest and links to the chosen. where: attribute -> values. flagged: whether images that a
    quality check flagged may be chosen. split: shares of train, val and test. ledger: folder of the
    embedded ledger; by default in the user's data folder. Run again after changes: only new files
    are read. Raises pixsift.errors.UserError for a mistake.
    """
    wishes = Wishes(
        out=None if out is None else Path(out),
        select=select_of(k=k, strategy=strategy, seed=seed, split=split),
        where={
            "attributes": {name: list(values) for name, values in (where or {}).items()},
            "flagged": flagged,
        },
        split=dict(split or {}),
        preset=preset,
        link=link,
    )
    store = FolderLedger(default_ledger_folder() if ledger is None else Path(ledger))
    tools = Tools(model=ModelChoice(model), logger=quiet_logger(), progress=progress)
    done = run(Path(folder), store, wishes, tools, threading.Event())
    with store, Database(store.url) as database:
        return _as_tables(database, done)


def run(
    folder: Path, store: FolderLedger, wishes: Wishes, tools: Tools, stop: threading.Event
) -> Curated:
    """``operations.curate.curate`` as a process of its own would run it."""
    os.environ.setdefault(*_BLAS_PATIENCE)
    return operation.curate(folder, store, wishes, tools, stop)


def select_of(
    *,
    k: int | None,
    strategy: str | None,
    seed: int = 0,
    split: object = None,
) -> dict[str, Any] | None:
    """``select`` of a request. None where nothing is to be chosen; a split alone takes all."""
    if k is None and strategy is None:
        return {"strategy": "all", "seed": seed} if split else None
    chosen: dict[str, Any] = {"seed": seed}
    if k is not None:
        chosen |= {"k": k, "at_most": True}
    if strategy is not None:
        chosen["strategy"] = strategy
    return chosen


def quiet_logger() -> Logger:
    """The first few errors, on standard error: standard output belongs to the caller, and an error
    of one picture may occur for all of them."""
    logger = Logger(service="pixsift", level="ERROR", stream=sys.stderr, use_rfc3339=True)
    left = count(_LOGGED_ERRORS, -1)
    logger.addFilter(lambda record: next(left) > 0)
    return logger


def _as_tables(database: Database, done: Curated) -> Curation:
    found = operation.collection_of(database, done.folder)
    assert found is not None  # noqa: S101 - it was judged just now
    by_key = {row.source.key: row for row in done.chosen}
    rows = FolderRows(database, found.collection_id)
    images = pa.Table.from_pylist(
        [record(row, by_key.get(row.key)) for row in rows.files()], schema=SCHEMA
    )
    return Curation(
        folder=done.folder,
        ledger=done.ledger,
        collection=done.collection,
        images=images,
        selection=_selection(images, done.chosen),
        report=done.report,
        output=done.out,
    )


def _selection(images: pa.Table, chosen: Sequence[ManifestRow]) -> pa.Table:
    if not chosen:
        return images.slice(0, 0)
    picked = images.filter(pa.compute.field("rank").is_valid())
    return picked.sort_by("rank")
