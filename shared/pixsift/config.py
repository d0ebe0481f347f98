"""Settings: environment variables ``PIXSIFT_*``, one frozen class per process, made of groups.

AWS itself is configured by the standard variables (``AWS_ENDPOINT_URL``, ``AWS_REGION``, ...), so
that no code knows LocalStack. Only a process's ``main``, or the ``wiring`` beside it, reads
settings; a function that needs a threshold takes a float.
"""

from typing import Any, Literal

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from pixsift.errors import SettingError


class _Settings(BaseSettings):
    """Raises UserError naming the first wrong variable, so that no caller can forget to."""

    model_config = SettingsConfigDict(env_prefix="PIXSIFT_", frozen=True, extra="ignore")

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as exc:
            first = exc.errors()[0]
            variable = "PIXSIFT_" + "_".join(str(part) for part in first["loc"]).upper()
            raise SettingError(f"{variable}={first['input']!r}: {first['msg']}") from exc


class DatabaseSettings(_Settings):
    """Where the ledger lives."""

    database_url: SecretStr = Field(
        default=SecretStr(""),
        description="libpq URI of the ledger's PostgreSQL, the writer endpoint; "
        "services need it; commands without it use the loop that pixsift up left running",
    )
    database_secret: str = Field(
        default="",
        description="name or ARN of a Secrets Manager secret with username and password (host, "
        "port and dbname too, where the URL lacks them), read before every connection, so that "
        "it may rotate; empty means that the URL or PGPASSWORD has the password",
    )
    database_iam: bool = Field(
        default=False,
        description="log in to RDS with an IAM token, made before every connection, in place of "
        "a password",
    )
    database_connect_seconds: int = Field(
        default=5,
        ge=1,
        le=120,
        description="longest that one connection may take to come about, seconds; an Aurora that "
        "pauses needs 30 to wake up",
    )


class QueueSettings(_Settings):
    """Queues, and how long a message may stay with one process."""

    ingest_queue: str = Field(
        default="pixsift-ingest", description="name or URL of the queue S3 notifies"
    )
    ingest_dlq: str = Field(
        default="pixsift-ingest-dlq", description="name or URL of its dead-letter queue"
    )
    snapshot_queue: str = Field(
        default="pixsift-snapshot-requests",
        description="name or URL of the queue of snapshot requests",
    )
    visibility_timeout_seconds: int = Field(
        default=60,
        ge=1,
        le=43_200,
        description="how long a received message stays hidden between heartbeats, seconds",
    )


class BucketSettings(_Settings):
    """Buckets pixsift writes to; the ones it reads from are the collections' sources."""

    derived_bucket: str = Field(
        default="pixsift-derived", description="bucket for thumbnails; can be rebuilt"
    )
    curated_bucket: str = Field(
        default="pixsift-curated", description="bucket for published snapshots"
    )


class ModelSettings(_Settings):
    """Which model turns pixels into vectors."""

    model: str = Field(
        default="efficientnet-lite0",
        description="efficientnet-lite0 (weights from pip), "
        "facebook/dinov2-small|base|large|giant, "
        "a local folder with safetensors, or stub",
    )
    model_revision: str = Field(default="", description="hub commit to pin; empty for local models")
    model_weights_sha256: str = Field(
        default="",
        pattern=r"^([0-9a-fA-F]{64})?$",
        description="hex hash the weights must have, or the process does not start; empty: any",
    )
    torch_compile: bool = Field(
        default=False,
        description="compile a DINOv2 model at start: minutes slower to start, faster on a GPU",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="where the model runs"
    )
    max_batch: int = Field(default=16, ge=1, le=1024, description="most images per forward pass")


class SearchSettings(_Settings):
    """How near-duplicates are looked for when a batch is decided."""

    search: Literal["auto", "resident", "hnsw"] = Field(
        default="auto",
        description="resident: exact, the kept vectors of a collection in memory; hnsw: pgvector "
        "index plus exact tail; auto: resident while the vectors fit PIXSIFT_SEARCH_MEMORY_BYTES",
    )
    search_memory_bytes: int = Field(
        default=2 << 30,
        ge=0,
        description="most memory for the resident vectors of one collection, bytes; "
        "one million of 384 dimensions take 2.1 GB",
    )
    search_device: Literal["cpu", "cuda"] = Field(
        default="cpu", description="where resident vectors live and are compared"
    )


class LocalSettings(_Settings):
    """The local loop: pixsift up, down and demo."""

    state_dir: str = Field(
        default=".pixsift",
        description="folder of the local loop, of its own: what runs, logs, results",
    )
    localstack_venv: str = Field(
        default=".venv-localstack",
        description="virtual environment that holds localstack/requirements.txt",
    )


class TelemetrySettings(_Settings):
    """What a process tells about itself."""

    stage: str = Field(
        default="",
        pattern=r"^([a-z0-9][a-z0-9-]{0,30})?$",
        description="name of the deployment, second dimension of every metric, so that two in one "
        "account do not mix theirs; empty means none",
    )
    health_file: str = Field(
        default="",
        description="file touched every turn of the loop and whenever an object is done, for a "
        "health check by its age (python -m pixsift.health); empty means none",
    )

    log_level: str = Field(
        default="INFO",
        pattern=r"(?i)^(DEBUG|INFO|WARNING|ERROR)$",
        description="DEBUG, INFO, WARNING or ERROR",
    )


class CuratorSettings(DatabaseSettings, QueueSettings, BucketSettings, TelemetrySettings):
    """How the curator selects and exports."""

    request_poll_seconds: int = Field(
        default=20, ge=0, le=20, description="long poll of the snapshot-request queue, seconds"
    )
    request_deadline_seconds: int = Field(
        default=39_600,
        ge=1,
        description="longest a request is kept in one process's hands, seconds; "
        "SQS allows 12 hours",
    )
    lease_seconds: int = Field(
        default=60,
        ge=1,
        description="after how long without a sign of life another curator takes a snapshot over, "
        "seconds",
    )
    copy_concurrency: int = Field(
        default=32, ge=1, le=1000, description="server-side copies in flight at once"
    )
    shard_bytes: int = Field(
        default=268_435_456, ge=1, description="size to cut WebDataset shards at, bytes"
    )
    spill_dir: str = Field(
        default="",
        description="folder for the embeddings of a pool while it is chosen from, 2 bytes per "
        "dimension and image; empty means the system's temporary folder",
    )
    event_bus: str = Field(
        default="default", description="EventBridge bus that is told of finished snapshots"
    )


class ConsumerSettings(
    DatabaseSettings,
    QueueSettings,
    BucketSettings,
    ModelSettings,
    SearchSettings,
    TelemetrySettings,
):
    """How the consumer takes, holds and gives back work."""

    poll_seconds: int = Field(
        default=8,
        ge=0,
        le=20,
        description="long poll of the ingest queue, seconds; a stop waits for it to end",
    )
    stop_seconds: float = Field(
        default=6.0,
        ge=0,
        description="after SIGTERM: how long to finish what is in hand before it is given back, "
        "seconds; with the poll and five more for closing, the whole stop stays below 20, "
        "or below 30 while SQS does not answer",
    )
    message_deadline_seconds: float = Field(
        default=600.0,
        gt=0,
        description="longest a message is kept hidden by one process, seconds",
    )
    slow_lane_every_seconds: float = Field(
        default=10.0,
        gt=0,
        description="how often an empty dead-letter queue is asked again, seconds",
    )
    max_in_flight: int = Field(
        default=128, ge=1, description="object versions inside the consumer at any time"
    )
    max_pipeline_bytes: int = Field(
        default=268_435_456,
        ge=1,
        description="bytes of objects and pixels inside the consumer at any time",
    )
    max_object_bytes: int = Field(
        default=67_108_864, ge=1, description="larger objects are rejected unread, bytes"
    )
    fetch_threads: int = Field(default=8, ge=1, description="objects fetched at once")
    decode_workers: int = Field(default=2, ge=1, description="decoder processes")
    decode_formats: str = Field(
        default="JPEG,PNG,WEBP,BMP,TIFF",
        pattern=r"^(JPEG|PNG|WEBP|BMP|TIFF|GIF)(,(JPEG|PNG|WEBP|BMP|TIFF|GIF))*$",
        description="formats that are decoded, told by content: any of JPEG, PNG, WEBP, BMP, "
        "TIFF, GIF, separated by commas",
    )
    decode_max_pixels: int = Field(
        default=50_000_000, ge=1, description="larger images are rejected by their header, pixels"
    )
    decode_memory_bytes: int = Field(
        default=2_147_483_648,
        ge=268_435_456,
        description="address space of one decoder process, bytes",
    )
    decode_wall_seconds: float = Field(
        default=10.0, gt=0, description="an image that takes longer is rejected, seconds"
    )
