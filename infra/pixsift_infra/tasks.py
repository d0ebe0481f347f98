"""The processes as ECS tasks, with their resources and settings. Nothing here needs CDK."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pixsift_infra.stage import Stage

HEALTH: Mapping[str, Any] = {
    "command": ["CMD", "python", "-m", "pixsift.health"],
    "interval": 30, "timeout": 10, "start_period": 300, "retries": 3,
}  # fmt: skip
"""ECS ignores an image's HEALTHCHECK; a test compares the two."""
SERVER_PORT = 8470


@dataclass(frozen=True, slots=True)
class Task:
    """One process. cpu: 1024 a vCPU. ingest: its ingest queue, without the prefix."""

    name: str
    command: tuple[str, ...]
    cpu: int
    memory_mb: int
    role: str
    needs_model: bool = False
    health: Mapping[str, Any] | None = None
    ingest: str = ""
    disk_gb: int = 21
    stop_seconds: int = 60
    ports: tuple[int, ...] = ()
    schedule: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def construct_id(self) -> str:
        """The id of its constructs in the template."""
        return "".join(part.title() for part in self.name.split("-"))


def consumer_task(stage: Stage, space: str) -> Task:
    """A GPU and 7 of 8 vCPUs: one is left to ECS; on Fargate 4, without a GPU."""
    gpu = stage.compute.consumer == "gpu"
    first = space == stage.events.spaces[0]
    model = stage.compute.models.get(space)
    return Task(
        name="consumer" if first else f"consumer-{space}", command=("pixsift-consumer",),
        cpu=7168 if gpu else 4096, memory_mb=28_672 if gpu else 16_384, role="consumer",
        needs_model=True, health=HEALTH, ingest=stage.ingest_queue(space), disk_gb=30,
        environment={
            "PIXSIFT_DECODE_WORKERS": "6" if gpu else "3",
            "PIXSIFT_DEVICE": "cuda" if gpu else "cpu",
            "PIXSIFT_MAX_BATCH": "64" if gpu else "16",
            "PIXSIFT_SEARCH_DEVICE": "cuda" if gpu else "cpu",
            "PIXSIFT_SEARCH_MEMORY_BYTES": str((12 if gpu else 6) << 30),
            "PIXSIFT_HEALTH_FILE": "/tmp/pixsift-heartbeat",  # noqa: S108
            # Several spaces: the topic brings every event to each queue.
            "PIXSIFT_OWN_QUEUE": "true" if len(stage.events.spaces) > 1 else "false",
            **({"PIXSIFT_MODEL": model} if model else {}),
        },
    )  # fmt: skip


def curator_task() -> Task:
    """Its vectors are spilled to the task's own disk: 2 bytes a dimension and image."""
    return Task(
        name="curator", command=("pixsift-curator",), cpu=4096, memory_mb=16_384, role="curator",
        health=HEALTH, disk_gb=100,
        environment={
            "PIXSIFT_SPILL_DIR": "/tmp",  # noqa: S108 - a volume of 100 GB, not memory
            "PIXSIFT_HEALTH_FILE": "/tmp/pixsift-heartbeat",  # noqa: S108
        },
    )  # fmt: skip


def server_task(stage: Stage) -> Task:
    """HTTP; it answers to the names of the stage, and to the health check by 127.0.0.1.

    Searching by an image needs the model, on a CPU.
    """
    url = f"http://127.0.0.1:{SERVER_PORT}/v1/health"
    check = f"import urllib.request as u; u.urlopen('{url}', timeout=5)"
    return Task(
        name="server", command=("pixsift-server",), cpu=1024, memory_mb=4096, role="server",
        needs_model=True, ports=(SERVER_PORT,),
        ingest=stage.ingest_queue(stage.events.spaces[0]),
        health={**HEALTH, "command": ["CMD", "python", "-c", check]},
        environment={
            "PIXSIFT_DEVICE": "cpu", "PIXSIFT_SERVER_PORT": str(SERVER_PORT),
            "PIXSIFT_SERVER_HOST": "0.0.0.0",  # noqa: S104 - the task's own address
            "PIXSIFT_SERVER_NAMES": ",".join((*stage.compute.server_names, "127.0.0.1")),
        },
    )  # fmt: skip


JOBS = (
    Task(name="migrate", command=("pixsift", "migrate"), cpu=256, memory_mb=512, role="migrate"),
    Task(name="doctor", command=("pixsift", "doctor", "--no-model"), cpu=512, memory_mb=1024,
         role="doctor", ingest="ingest"),
    Task(name="reconcile", command=("pixsift", "reconcile"), cpu=512, memory_mb=1024,
         role="reconcile", ingest="ingest", schedule="rate(1 hour)"),
    Task(name="audit-sample", command=("pixsift", "audit", "--sample", "1000"), cpu=1024,
         memory_mb=4096, role="migrate", ingest="ingest", schedule="rate(1 hour)"),
    Task(name="audit", command=("pixsift", "audit", "--snapshots"), cpu=2048, memory_mb=8192,
         role="audit", ingest="ingest", schedule="cron(0 3 * * ? *)"),
)  # fmt: skip
"""Tasks that run and end. The first is run by every deployment."""
