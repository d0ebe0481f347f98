"""The settings of one deployment (a stage), read from ``infra/stages/NAME.toml``.

Frozen, and strict: an unknown key is refused with its name, before anything is synthesized. What is
not in the file has the default given here. CDK is not imported: reading a stage needs no Node.
"""

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

STAGES = Path(__file__).resolve().parents[1] / "stages"
NAME = r"^[a-z0-9][a-z0-9-]{0,15}$"
HOST_NAME = r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$"
COLLECTION = r"^[a-z0-9][a-z0-9._-]{0,62}$"
Name = Annotated[str, Field(pattern=NAME)]


class StageError(ValueError):
    """A stage file that cannot be deployed; one line that names file, key and remedy."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Schedule(_Part):
    """A snapshot that is requested repeatedly."""

    expression: str = Field(
        pattern=r"^(rate|cron)\(.+\)$", description="rate(...) or cron(...), UTC"
    )
    collection: str = Field(default="default", pattern=COLLECTION, description="of what")
    images: int = Field(default=1000, ge=1, description="at most so many images")
    enabled: bool = Field(default=True, description="whether it fires")


class Events(_Part):
    """Buckets, queues, schedules."""

    spaces: tuple[Name, ...] = Field(
        default=("main",), min_length=1, max_length=5,
        description="embedding spaces; each has an ingest queue with its DLQ and its consumers. "
        "With more than one the bucket's events go through an SNS topic",
    )  # fmt: skip
    bucket_names: Literal["account", "plain"] = Field(
        default="account",
        description="account: PREFIX-raw-ACCOUNT-REGION, free in the whole world; plain: "
        "PREFIX-raw, for emulators",
    )
    raw_bucket: str = Field(
        default="", pattern=r"^([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])?$",
        description="an existing bucket to judge; it must send its events to EventBridge. Empty: "
        "a bucket of the stack's own",
    )  # fmt: skip
    raw_account: str = Field(
        default="", pattern=r"^(\d{12})?$",
        description="the account of raw_bucket, where that is another one",
    )  # fmt: skip
    raw_key_arn: str = Field(
        default="", pattern=r"^(arn:[\w-]+:kms:[\w-]+:\d{12}:key/[\w-]+)?$",
        description="customer key of the raw bucket; empty: S3's own",
    )  # fmt: skip
    raw_storage: Literal["standard", "intelligent"] = Field(
        default="standard", description="storage class that new raw objects move to"
    )
    raw_noncurrent_days: int = Field(
        default=30, ge=1, description="until an overwritten or deleted raw object is gone"
    )
    curated_noncurrent_days: int = Field(
        default=30, ge=1, description="the same for what snapshots wrote"
    )
    thumbnail_days: int = Field(
        default=365, ge=1, description="until a thumbnail expires; it can be made again"
    )
    schedules: tuple[Schedule, ...] = Field(
        default=(Schedule(expression="rate(1 day)"),), max_length=9, description="snapshots"
    )

    @model_validator(mode="after")
    def _consistent(self) -> "Events":
        if len(set(self.spaces)) != len(self.spaces):
            raise ValueError("spaces are named twice: give each a name of its own")
        if self.raw_account and not self.raw_bucket:
            raise ValueError("raw_account without raw_bucket: name the bucket in that account")
        return self


class Network(_Part):
    """Where the processes run."""

    vpc_id: str = Field(
        default="", pattern=r"^(vpc-[0-9a-f]+)?$",
        description="an existing VPC, with subnets below; empty: one of the stack's own",
    )  # fmt: skip
    subnet_ids: tuple[str, ...] = Field(
        default=(), description="two private subnets of vpc_id in two zones"
    )
    cidr: str = Field(
        default="10.80.0.0/20", pattern=r"^\d+\.\d+\.\d+\.\d+/(1[6-9]|2[0-4])$",
        description="addresses of an own VPC",
    )  # fmt: skip
    egress: Literal["nat", "endpoints", "public"] = Field(
        default="nat",
        description="the way out of an own VPC: nat, one gateway, about $33 a month and $0.045 a "
        "GB; endpoints, 10 interfaces in 2 zones, about $146, nothing leaves AWS; public, tasks "
        "with public addresses, about $4 a task, no way in",
    )

    @model_validator(mode="after")
    def _two_zones(self) -> "Network":
        if self.vpc_id and len(set(self.subnet_ids)) < 2:
            raise ValueError("vpc_id without two subnet_ids: a database needs subnets in two zones")
        if self.subnet_ids and not self.vpc_id:
            raise ValueError("subnet_ids without vpc_id: name the VPC that they are in")
        return self


class Database(_Part):
    """The ledger."""

    kind: Literal["rds", "aurora", "given"] = Field(
        default="rds",
        description="rds: one PostgreSQL instance; aurora: Serverless v2; given: secret_arn",
    )
    secret_arn: str = Field(
        default="", pattern=r"^(arn:[\w-]+:secretsmanager:[\w:/+=.@-]+)?$",
        description="given: secret with username, password, host, port, dbname",
    )  # fmt: skip
    security_group_id: str = Field(
        default="", pattern=r"^(sg-[0-9a-f]+)?$",
        description="given: its security group, which the tasks are let into",
    )  # fmt: skip
    engine_version: str = Field(default="18.3", description="rds: PostgreSQL's version")
    aurora_version: str = Field(default="17.6", description="aurora: PostgreSQL's version")
    instance: str = Field(
        default="db.t4g.medium", pattern=r"^db\.[\w.]+$", description="rds: class"
    )
    storage_gb: int = Field(default=100, ge=20, description="rds: 5.4 kB per object are needed")
    multi_az: bool = Field(default=True, description="rds: a standby in a second zone")
    min_acu: float = Field(
        default=0.5, ge=0, description="aurora: 0 lets it pause, for development"
    )
    max_acu: float = Field(default=8, ge=1, description="aurora: capacity at most")
    backup_days: int = Field(default=14, ge=1, le=35, description="point-in-time recovery")

    @model_validator(mode="after")
    def _secret(self) -> "Database":
        if (self.kind == "given") != bool(self.secret_arn):
            raise ValueError("kind = 'given' and secret_arn belong together: set both or neither")
        return self


class Compute(_Part):
    """The processes."""

    consumer: Literal["gpu", "cpu"] = Field(
        default="gpu", description="gpu: ECS Managed Instances; cpu: Fargate"
    )
    instance_types: tuple[str, ...] = Field(
        default=("g6.2xlarge", "g4dn.2xlarge", "g5.2xlarge"), min_length=1,
        description="gpu: what may be started; 8 vCPU each",
    )  # fmt: skip
    spot: bool = Field(default=True, description="gpu: Spot first, on-demand where there is none")
    images_per_second: int = Field(
        default=450, ge=1, description="of one consumer; see docs/deploy.md for the arithmetic"
    )
    max_consumers: int = Field(
        default=4, ge=1, le=4,
        description="per embedding space; the lock of one collection feeds no more than 4",
    )  # fmt: skip
    min_consumers: int = Field(default=0, ge=0, le=4, description="0: a cold start takes minutes")
    server: bool = Field(
        default=False, description="run pixsift-server, port 8470; make a token for it first"
    )
    server_names: tuple[Annotated[str, Field(pattern=HOST_NAME)], ...] = Field(
        default=(), description="host names that callers use; it answers under no other"
    )
    models: dict[Name, str] = Field(
        default_factory=dict,
        description="PIXSIFT_MODEL by embedding space, where it is not the image's own",
    )
    log_days: Literal[7, 14, 30, 60, 90, 180, 365] = Field(default=30, description="kept logs")

    @model_validator(mode="after")
    def _named_server(self) -> "Compute":
        if self.server and not self.server_names:
            raise ValueError("server without server_names: name the host that callers use")
        return self


class Observability(_Part):
    """Dashboard and alarms."""

    alarm_topic_arn: str = Field(
        default="", pattern=r"^(arn:[\w-]+:sns:[\w-]+:\d{12}:[\w-]+)?$",
        description="who is told; empty: a topic of the stack's own",
    )  # fmt: skip
    alarm_email: str = Field(default="", pattern=r"^([^@\s]+@[^@\s]+)?$", description="subscribed")


class Stage(_Part):
    """One deployment."""

    name: Name = Field(description="name of the stage; of metrics and logs too")
    prefix: str = Field(
        default="", pattern=r"^([a-z0-9][a-z0-9-]{1,23})?$",
        description="first part of every name; empty: pixsift-NAME",
    )  # fmt: skip
    account: str = Field(default="", pattern=r"^(\d{12})?$", description="refuse any other account")
    region: str = Field(default="", pattern=r"^([a-z]{2}(-[a-z]+)+-\d)?$", description="of AWS")
    protected: bool = Field(default=True, description="stacks and database refuse deletion")
    tags: dict[str, str] = Field(default_factory=dict, description="on every resource")
    events: Events = Events()
    network: Network = Network()
    database: Database = Database()
    compute: Compute = Compute()
    observability: Observability = Observability()

    @property
    def resource_prefix(self) -> str:
        """What every name begins with."""
        return self.prefix or f"pixsift-{self.name}"

    def ingest_queue(self, space: str) -> str:
        """Name of the ingest queue of an embedding space, after ``PREFIX-``; the first is plain."""
        return "ingest" if space == self.events.spaces[0] else f"ingest-{space}"


def read_stage(name: str, folder: Path = STAGES) -> Stage:
    """The stage called ``name`` in ``folder``, or in the file that ``name`` is the path of.

    Raises StageError with one line that names the file, the key and what is wrong with it.
    """
    path = Path(name) if name.endswith(".toml") else folder / f"{name}.toml"
    try:
        return Stage.model_validate({"name": path.stem, **tomllib.loads(path.read_text("utf-8"))})
    except FileNotFoundError:
        known = ", ".join(sorted(file.stem for file in folder.glob("*.toml"))) or "none"
        raise StageError(f"there is no stage {name!r}: write {path} (there are: {known})") from None
    except tomllib.TOMLDecodeError as error:
        raise StageError(f"{path} cannot be read: {error}") from error
    except ValidationError as error:
        raise StageError(f"{path}: {_first(error.errors())}") from error


def with_shadow(stage: Stage) -> Stage:
    """The stage with a second embedding space, ``shadow``, for a model next to the one in use."""
    spaces = (*stage.events.spaces, "shadow")
    return stage.model_copy(update={"events": stage.events.model_copy(update={"spaces": spaces})})


def _first(errors: Sequence[Any]) -> str:
    first = errors[0]
    key = ".".join(str(part) for part in first["loc"]) or "the stage"
    if first["type"] == "extra_forbidden":
        return f"{key} is no key: take it out, or see docs/deploy.md for those there are"
    return f"{key}: {first['msg'].removeprefix('Value error, ')}"
