"""What runs on this machine: doctor, demo, local loop, a folder of pictures."""

from typing import Literal

from pixsift.answers.base import Answer


class DoctorFinding(Answer):
    """One dependency, with the remedy in the words of a terminal."""

    name: str
    state: Literal["ok", "wrong", "note"]
    detail: str
    remedy: str


class DoctorReport(Answer):
    """Every dependency."""

    ok: bool
    findings: list[DoctorFinding]


class DemoReport(Answer):
    """What the demo found; ``complaints`` is empty when the ledger is right."""

    uploaded: int
    ignored: int
    outcomes: dict[str, dict[str, int]]
    """Outcome -> reason -> objects."""
    snapshot_id: str
    snapshot_images: int
    snapshot_location: str
    snapshot_folder: str
    contact_sheet: str
    seconds: float
    complaints: list[str]


class LoopFacts(Answer):
    """The local loop that runs."""

    environment: dict[str, str]
    """The variables with which any process finds it."""
    state: str
    """Its folder."""


class LoopStopped(Answer):
    """What became of the local loop."""

    stopped: list[str]
    object_versions_saved: int | None
    """None: there was nothing to save, or LocalStack was gone."""
    deleted: bool


class OutcomeOfFiles(Answer):
    """How many files of a folder became the same for the same reason."""

    outcome: str
    reason: str
    images: int


class FolderReport(Answer):
    """What became of a folder of pictures, and where the output is."""

    folder: str
    collection: str
    ledger: str
    seconds: float
    stopped: bool
    """Asked to stop before the end: run again to go on."""
    files: int
    judged: int
    """In this run."""
    unchanged: int
    ignored: int
    removed: int
    undecided: int
    unreadable_folders: list[str]
    outcomes: list[OutcomeOfFiles]
    flags: dict[str, int]
    snapshot_id: str | None
    chosen: int
    changed: list[str]
    """Chosen files that changed meanwhile and were left out."""
    out: str | None
    report: str | None
