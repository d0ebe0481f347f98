"""Settings: environment variables ``PIXSIFT_*``, one frozen class per process, made of groups.

AWS itself is configured by the standard variables (``AWS_ENDPOINT_URL``, ``AWS_REGION``, ...), so
that no code knows LocalStack. Only a process's ``main``, or the ``wiring`` next to it, reads
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
        description="libpq URI of the ledger's PostgreSQL (writer endpoint). Required for the "
        "services; commands use the local loop if it is empty",
    )
    database_secret: str = Field(
        default="",
        description="name or ARN of a Secrets Manager secret with username and password (and host, "
        "port and dbname, if the URL lacks them). It is read before every connection, so it may "
        "be rotated. Empty: the password comes from the URL or PGPASSWORD",
    )
    database_iam: bool = Field(
        default=False,
        description="log in to RDS with an IAM token instead of a password; a new token for every "
        "connection",
    )
    database_connect_seconds: int = Field(
        default=5,
        ge=1,
        le=120,
        description="maximum time to open a connection, in seconds; a paused Aurora cluster "
        "needs 30 "
        "to resume",
    )


class QueueSettings(_Settings):
    """Queues, and how long a message may stay with one process."""

    ingest_queue: str = Field(
        default="pixsift-ingest",
        description="name or URL of the queue that receives S3 event notifications",
    )
    ingest_dlq: str = Field(
        default="pixsift-ingest-dlq", description="name or URL of its dead-letter queue"
    )
    snapshot_queue: str = Field(
        default="pixsift-snapshot-requests",
        description="name or URL of the queue of snapshot requests",
    )
    snapshot_dlq: str = Field(
        default="",
        description="name or URL of its dead-letter queue, which the curator drains; empty: the "
        "queue's name with -dlq",
    )
    visibility_timeout_seconds: int = Field(
        default=60,
        ge=1,
        le=43_200,
        description="visibility timeout of received messages, in seconds; renewed while they are "
        "processed",
    )

    @property
    def snapshot_dead_letters(self) -> str:
        """The dead-letter queue of snapshot requests."""
        return self.snapshot_dlq or f"{self.snapshot_queue}-dlq"


class BucketSettings(_Settings):
    """Buckets pixsift writes to; the ones it reads from are the collections' sources."""

    derived_bucket: str = Field(default="pixsift-derived", description="bucket for thumbnails")
    curated_bucket: str = Field(
        default="pixsift-curated", description="bucket for published snapshots"
    )
    journal_bucket: str = Field(
        default="",
        description="bucket of the journal of erasures, rulings and revoked tokens, under "
        ".pixsift/obligations/; a restored ledger repeats them from there. Empty: the curated "
        "bucket",
    )

    @property
    def journal(self) -> str:
        """The bucket of the journal."""
        return self.journal_bucket or self.curated_bucket


class ModelSettings(_Settings):
    """Which model turns pixels into vectors."""

    model: str = Field(
        default="efficientnet-lite0",
        description="efficientnet-lite0 (weights from pip), "
        "facebook/dinov2-small|base|large|giant, "
        "a local folder with safetensors, or stub",
    )
    model_revision: str = Field(
        default="", description="commit of the hub repository to use; empty for local models"
    )
    model_weights_sha256: str = Field(
        default="",
        pattern=r"^([0-9a-fA-F]{64})?$",
        description="SHA-256 (hex) that the weights must have; empty: not checked",
    )
    torch_compile: bool = Field(
        default=False,
        description="compile a DINOv2 model at start: starts minutes later, runs faster on a GPU",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="device that runs the model"
    )
    max_batch: int = Field(
        default=16, ge=1, le=1024, description="maximum number of images per forward pass"
    )


class SearchSettings(_Settings):
    """How a batch is searched for near-duplicates."""

    search: Literal["auto", "resident", "hnsw"] = Field(
        default="auto",
        description="resident: exact, with the kept vectors of a collection in memory; hnsw: "
        "pgvector "
        "index plus exact tail; auto: resident if the vectors fit PIXSIFT_SEARCH_MEMORY_BYTES",
    )
    search_memory_bytes: int = Field(
        default=2 << 30,
        ge=0,
        description="maximum memory for the vectors of one collection, in bytes; "
        "one million of 384 dimensions take 2.1 GB",
    )
    search_device: Literal["cpu", "cuda"] = Field(
        default="cpu", description="device that holds and compares resident vectors"
    )


class LocalSettings(_Settings):
    """The local loop: pixsift up, down and demo."""

    state_dir: str = Field(
        default=".pixsift",
        description="folder for the processes, logs and results of the local loop; do not share it",
    )
    ledger_dir: str = Field(
        default="",
        description="folder of the embedded ledger of pixsift curate; empty: pixsift in the user's "
        "data folder",
    )
    localstack_venv: str = Field(
        default=".venv-localstack",
        description="virtual environment with the packages of localstack/requirements.txt",
    )


class TelemetrySettings(_Settings):
    """Logs, metrics and the health check of a process."""

    stage: str = Field(
        default="",
        pattern=r"^([a-z0-9][a-z0-9-]{0,30})?$",
        description="name of the deployment, the second dimension of every metric: keeps the "
        "metrics of two deployments in one account apart; empty: none",
    )
    health_file: str = Field(
        default="",
        description="file that a working process touches regularly; python -m pixsift.health "
        "checks "
        "its age; empty: none",
    )

    log_level: str = Field(
        default="INFO",
        pattern=r"(?i)^(DEBUG|INFO|WARNING|ERROR)$",
        description="DEBUG, INFO, WARNING or ERROR",
    )


class EventSettings(_Settings):
    """Where events go out."""

    event_bus: str = Field(
        default="default",
        description="EventBridge bus for events about finished snapshots and hits of watches",
    )


class CuratorSettings(
    DatabaseSettings, QueueSettings, BucketSettings, TelemetrySettings, EventSettings
):
    """How the curator selects and exports."""

    request_poll_seconds: int = Field(
        default=20,
        ge=0,
        le=20,
        description="long-poll time of the snapshot-request queue, in seconds",
    )
    request_deadline_seconds: int = Field(
        default=39_600,
        ge=1,
        description="maximum time for one request in one process, in seconds; SQS allows 12 hours",
    )
    request_give_up_seconds: float = Field(
        default=86_400.0,
        gt=0,
        description="age at which a request that an outage (a full disk, a bucket that does not "
        "respond) still keeps from being served ends as an announced failure, in seconds",
    )
    lease_seconds: int = Field(
        default=60,
        ge=1,
        description="time without a heartbeat after which another curator takes over a snapshot, "
        "in seconds",
    )
    copy_concurrency: int = Field(
        default=32, ge=1, le=1000, description="concurrent server-side copies"
    )
    shard_bytes: int = Field(
        default=268_435_456, ge=1, description="maximum size of a WebDataset shard, in bytes"
    )
    spill_dir: str = Field(
        default="",
        description="folder for a pool's embeddings during a selection, 2 bytes per dimension "
        "and image; empty: the system's temporary folder",
    )


class ConsumerSettings(
    DatabaseSettings,
    QueueSettings,
    BucketSettings,
    ModelSettings,
    SearchSettings,
    TelemetrySettings,
    EventSettings,
):
    """How the consumer receives, processes and returns messages."""

    own_queue: bool = Field(
        default=False,
        description="the ingest queue is for this embedding space alone, the others have their own "
        "(SNS fan-out); false: a message that another space wants is returned, never acknowledged",
    )
    poll_seconds: int = Field(
        default=8,
        ge=0,
        le=20,
        description="long-poll time of the ingest queue, in seconds; a stop waits for it",
    )
    stop_seconds: float = Field(
        default=6.0,
        ge=0,
        description="time after SIGTERM to finish work before the rest returns to the queue, in "
        "seconds; with the poll and five seconds for closing, a stop takes less than 20 seconds, "
        "or less than 30 if SQS does not respond",
    )
    message_deadline_seconds: float = Field(
        default=600.0,
        gt=0,
        description="maximum time that one process hides a message, in seconds",
    )
    slow_lane_every_seconds: float = Field(
        default=10.0,
        gt=0,
        description="interval between polls of an empty dead-letter queue, in seconds",
    )
    max_in_flight: int = Field(
        default=128, ge=1, description="maximum number of object versions in the consumer"
    )
    max_pipeline_bytes: int = Field(
        default=268_435_456,
        ge=1,
        description="maximum memory for objects and pixels in the consumer, in bytes",
    )
    max_object_bytes: int = Field(
        default=67_108_864,
        ge=1,
        description="maximum object size, in bytes; larger objects are rejected without reading "
        "them",
    )
    fetch_threads: int = Field(default=8, ge=1, description="objects fetched concurrently")
    decode_workers: int = Field(default=2, ge=1, description="decoder processes")
    decode_formats: str = Field(
        default="JPEG,PNG,WEBP,BMP,TIFF",
        pattern=r"^(JPEG|PNG|WEBP|BMP|TIFF|GIF)(,(JPEG|PNG|WEBP|BMP|TIFF|GIF))*$",
        description="formats to decode, detected by content: any of JPEG, PNG, WEBP, BMP, TIFF, "
        "GIF, separated by commas",
    )
    decode_max_pixels: int = Field(
        default=50_000_000,
        ge=1,
        description="maximum image size, in pixels; larger images are rejected by their header",
    )
    decode_memory_bytes: int = Field(
        default=2_147_483_648,
        ge=268_435_456,
        description="maximum address space of one decoder process, in bytes",
    )
    decode_wall_seconds: float = Field(
        default=10.0,
        gt=0,
        description="maximum decoding time of one image, in seconds; slower images are rejected",
    )


class ServerSettings(
    DatabaseSettings,
    QueueSettings,
    BucketSettings,
    ModelSettings,
    SearchSettings,
    TelemetrySettings,
):
    """How the server listens, which callers it accepts, and the limits of a request."""

    server_host: str = Field(
        default="127.0.0.1",
        description="address to listen on; beyond loopback, the server requires tokens or a "
        "trusted proxy",
    )
    server_port: int = Field(
        default=8470, ge=0, le=65_535, description="port to listen on; 0: a free one"
    )
    server_auth: Literal["auto", "required"] = Field(
        default="auto",
        description="auto: callers on this machine are operators without a token as long as the "
        "server listens on loopback; required: every caller needs a token or the proxy's header",
    )
    server_names: str = Field(
        default="",
        description="host names that callers use, separated by commas; requests with another Host "
        "header are refused. Empty: localhost and the address the server listens on",
    )
    proxy_identity_header: str = Field(
        default="",
        pattern=r"^([A-Za-z][A-Za-z0-9-]{0,63})?$",
        description="header in which a trusted proxy names the person, such as "
        "X-Auth-Request-Email; empty: none",
    )
    proxy_addresses: str = Field(
        default="127.0.0.1",
        description="addresses or networks (CIDR) of the trusted proxy, separated by commas; the "
        "header of any other caller is ignored",
    )
    proxy_role: Literal["viewer", "reviewer", "operator"] = Field(
        default="viewer", description="role of every person that the trusted proxy names"
    )
    max_body_bytes: int = Field(
        default=33_554_432, ge=1024, description="maximum size of a request body, in bytes"
    )
    requests_per_second: float = Field(
        default=50.0,
        gt=0,
        description="requests per second and caller, on average; more are answered with 429",
    )
    server_threads: int = Field(
        default=16, ge=1, le=200, description="requests served concurrently"
    )
