"""What a deployment plans, does and costs."""

from pydantic import RootModel

from pixsift.answers.base import Answer
from pixsift.core.cost import CostLine
from pixsift.core.deployment import Images, PlannedStack


class CostReport(Answer):
    """What a month on AWS costs, in dollars."""

    month: float
    per_million_images: float
    prices_as_of: str
    lines: tuple[CostLine, ...]


class ReleaseImages(RootModel[Images]):
    """The two images of a release, by digest."""


class DeploymentPlan(Answer):
    """What a deployment would change, and what a month costs, in dollars."""

    account: str
    region: str
    notes: list[str]
    stacks: list[PlannedStack]
    images_per_day: float
    month: float


class TaskReport(Answer):
    """How a one-off task ended, and its last lines."""

    status: int | None
    """Of its process; None where that never started."""
    reason: str
    lines: list[str]


class DeploymentReport(Answer):
    """What a deployment did. stacks: created, updated or unchanged by name."""

    ok: bool
    account: str
    region: str
    notes: list[str]
    stacks: dict[str, str]
    images: Images
    doctor: TaskReport | None


class PendingMigrations(Answer):
    """Migrations that would be applied now."""

    pending: list[str]


class AppliedMigrations(Answer):
    """Migrations that were applied."""

    applied: list[str]
