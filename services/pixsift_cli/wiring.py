"""Wiring of the command: the only file that reads settings and constructs adapters.

A command gets here what it needs and passes it to an operation (``pixsift.operations``).
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pixsift.adapters.aws.journal import Journal
from pixsift.adapters.aws.s3 import S3Objects
from pixsift.adapters.aws.sqs import SqsQueue
from pixsift.adapters.aws.uploads import FolderUploads
from pixsift.adapters.decode.pool import DecoderPool
from pixsift.adapters.ledger.login import ledger_login
from pixsift.adapters.local.folder_ledger import FolderLedger, default_ledger_folder
from pixsift.adapters.local.folder_objects import FolderObjects
from pixsift.adapters.postgres.database import Database, Login
from pixsift.config import (
    BucketSettings,
    DatabaseSettings,
    LocalSettings,
    ModelSettings,
    QueueSettings,
    ServerSettings,
)
from pixsift.core.files import folder_bucket
from pixsift.errors import NotFoundError, PixsiftError, Remedy
from pixsift.operations.embedder import ModelChoice
from pixsift.operations.local.loop import find_venv
from pixsift.operations.local.loop import use_running_loop as find_running_loop
from pixsift.operations.obligations import Obligations
from pixsift.operations.paths import is_path
from pixsift.operations.reconcile import Send
from pixsift.operations.status import Queues
from pixsift.operations.take_back import Ingest, NextRun
from pixsift.ports import ObjectStore

if TYPE_CHECKING:  # imported where they are used: every command imports this module
    from pixsift.operations.demo.run import Connections
    from pixsift.operations.deploy import Tools
    from pixsift.operations.local.up_down import Ingredients

ACTOR = "cli"
"""Who the ledger's turns say made them."""


def database_login() -> Login:
    """How to log in to the ledger. Raises SettingError when the settings do not say where it is."""
    settings = DatabaseSettings()
    return ledger_login(
        settings.database_url.get_secret_value(),
        secret=settings.database_secret,
        iam=settings.database_iam,
    )


# One function per group: a wrong setting stops only the commands that read it.


def model_settings() -> ModelSettings:
    """Which model."""
    return ModelSettings()


def queue_settings() -> QueueSettings:
    """The queues' names."""
    return QueueSettings()


def bucket_settings() -> BucketSettings:
    """The buckets' names."""
    return BucketSettings()


def server_settings() -> ServerSettings:
    """Where the server listens."""
    return ServerSettings()


def local_settings() -> LocalSettings:
    """The local loop's folders."""
    return LocalSettings()


def state_folder() -> Path:
    """The state folder of the local loop."""
    return Path(local_settings().state_dir)


def localstack_venv() -> Path:
    """Where LocalStack is installed, or should be."""
    return find_venv(Path(local_settings().localstack_venv))


def loop_ingredients(shadow_model: str = "") -> "Ingredients":
    """The parts of a local loop. shadow_model: next to the model in use; empty: none."""
    from pixsift.operations.local.up_down import Ingredients

    server_port = server_settings().server_port
    return Ingredients(localstack_venv(), model(), database_at, server_port, ACTOR, shadow_model)


def demo_connections() -> "Connections":
    """The connections of the demo to what it starts."""
    from pixsift.operations.demo.run import Connections

    return Connections(uploads, queue)


def use_running_loop() -> None:
    """Point this process at the loop that ``pixsift up`` left running, if there is one."""
    try:
        find_running_loop(state_folder())
    except PixsiftError:
        return  # up, down and doctor report it


@contextmanager
def database(*named: str | None) -> Iterator[Database]:
    """The ledger's database: that of the settings, or the one of folders.

    named: the user's names of objects and collections. A path among them means the ledger of
    folders; the same holds if no other ledger is set. Raises SettingError where there is none.
    """
    session = {"statement_timeout": "10min"}
    if not _means_folders(named):
        seconds = DatabaseSettings().database_connect_seconds
        with Database(
            database_login(), max_connections=4, connect_seconds=seconds, session=session
        ) as found:
            yield found
        return
    store = folder_ledger(None)
    if not store.exists():
        raise NotFoundError(f"no folder was curated yet in the ledger {store.root}",
                            code="no_folder", remedy=Remedy("curate_first"))  # fmt: skip
    with store, Database(store.url, max_connections=4, session=session) as found:
        _folders.opened = store
        try:
            yield found
        finally:
            _folders.opened = None


@dataclass(slots=True)
class _Folders:
    """Which ledger of folders the user named, and which one this command uses now."""

    named: Path | None = None
    opened: FolderLedger | None = None


_folders = _Folders()


def use_folder_ledger(folder: Path) -> None:
    """Make the commands of this process use the ledger of folders in ``folder``."""
    _folders.named = folder


def forget_folder_ledger() -> None:
    """Undo ``use_folder_ledger``, for another command in this process."""
    _folders.named = None


def _means_folders(named: Iterable[str | None]) -> bool:
    if _folders.named is not None or any(is_path(text) for text in named if text):
        return True
    found = DatabaseSettings()
    is_set = found.database_url.get_secret_value() or found.database_secret
    return not is_set and folder_ledger(None).exists()


def uses_folders() -> bool:
    """Whether the database that is open now is the ledger of folders."""
    return _folders.opened is not None


def database_at(url: str) -> Database:
    """The database of a loop that this process started itself."""
    return Database(url)


def folder_ledger(folder: Path | None) -> FolderLedger:
    """The embedded ledger of folders: as named, as set, or in the user's data folder."""
    named = folder or _folders.named or LocalSettings().ledger_dir
    return FolderLedger(Path(named) if named else default_ledger_folder())


def model(name: str | None = None) -> ModelChoice:
    """The model of the settings, or another one by its name."""
    return ModelChoice.of(ModelSettings()).named(name)


def decoder(input_side: int, *, workers: int) -> DecoderPool:
    """Isolated decoder processes; a context manager."""
    return DecoderPool(input_side, workers=workers)


def queue(name: str) -> SqsQueue:
    """A queue by its name or URL."""
    return SqsQueue(name)


def ingest_queue() -> Ingest:
    """The queue that S3 notifies; a folder has none: its next run finds what is open."""
    if _folders.opened is not None:
        return NextRun()
    return SqsQueue(QueueSettings().ingest_queue)


def send_to_ingest() -> Send:
    """Sends message bodies to the ingest queue."""
    return ingest_queue().send


def dead_letters() -> SqsQueue:
    """Its dead-letter queue."""
    return SqsQueue(QueueSettings().ingest_dlq)


def snapshot_queue() -> SqsQueue:
    """The queue of snapshot requests."""
    return SqsQueue(QueueSettings().snapshot_queue)


def queues() -> Queues:
    """Every queue, or why the settings lead to none. A folder has none."""
    if _folders.opened is not None:
        return {}
    found = QueueSettings()
    names = {
        "ingest": found.ingest_queue,
        "ingest_dlq": found.ingest_dlq,
        "snapshot_requests": found.snapshot_queue,
        "snapshot_requests_dlq": found.snapshot_dead_letters,
    }
    return {name: _queue(name_or_url) for name, name_or_url in names.items()}


def objects() -> ObjectStore:
    """Where the objects and thumbnails of the open ledger are."""
    return s3_objects() if _folders.opened is None else FolderObjects()


def s3_objects(*, connections: int | None = None) -> S3Objects:
    """S3. connections: the number of threads that use it at once."""
    return S3Objects() if connections is None else S3Objects(connections=connections)


def uploads(*, threads: int = 8) -> FolderUploads:
    """S3 for whole folders."""
    return FolderUploads(threads=threads)


def curated_bucket() -> str:
    """Where snapshots are published."""
    return BucketSettings().curated_bucket


def journal_bucket() -> str:
    """Where the journal is."""
    return BucketSettings().journal


def journal() -> Journal:
    """What a restored ledger must do again."""
    return Journal(s3_objects(), journal_bucket())


def obligations(database: Database) -> Obligations | None:
    """The journal of an open ledger; that of folders has none."""
    return None if uses_folders() else Obligations(database, journal())


def meet_journal(database: Database) -> None:
    """Before a command decides: a restored ledger first does again what the journal says."""
    if (found := obligations(database)) is not None:
        found.ensure()


def derived_bucket() -> str:
    """Where thumbnails are."""
    if _folders.opened is not None:
        return folder_bucket(str(_folders.opened.derived))
    return BucketSettings().derived_bucket


def deploy_tools(region: str, say_line: Callable[[str], None]) -> "Tools":
    """The adapters to AWS in ``region``; empty: the region of the AWS variables."""
    from pixsift.adapters.aws.account import Account
    from pixsift.adapters.aws.container_images import EcrImages
    from pixsift.adapters.aws.ecs_tasks import EcsTasks
    from pixsift.adapters.aws.stacks import Stacks
    from pixsift.operations.deploy import Tools

    return Tools(Stacks(region), EcsTasks(region), Account(region), EcrImages(region), say_line)


def _queue(name_or_url: str) -> SqsQueue | str:
    try:
        return SqsQueue(name_or_url)
    except PixsiftError as error:
        return str(error)
