"""What a deployment plans, does and costs."""

from pixsift.answers.base import Answer


class CostLine(Answer):
    """One thing that is paid for."""

    name: str
    amount: float
    unit: str
    dollars: float
    source: str


class CostReport(Answer):
    """What a month on AWS costs, in dollars."""

    month: float
    per_million_images: float
    prices_as_of: str
    lines: list[CostLine]


class ReleaseImages(Answer):
    """The two images of a release, by digest."""

    gpu: str
    services: str


class StackChange(Answer):
    """One line of a change set, in CloudFormation's words."""

    action: str
    logical_id: str
    type: str
    replacement: str


class PlannedStack(Answer):
    """What would happen to a stack. types: what a new one is made of, with counts."""

    stack: str
    action: str
    changes: list[StackChange]
    types: list[tuple[str, int]]


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
    reason: str
    lines: list[str]


class DeploymentReport(Answer):
    """What a deployment did. stacks: created, updated or unchanged by name."""

    ok: bool
    account: str
    region: str
    notes: list[str]
    stacks: dict[str, str]
    images: ReleaseImages
    doctor: TaskReport | None


class PendingMigrations(Answer):
    """Migrations that would be applied now."""

    pending: list[str]


class AppliedMigrations(Answer):
    """Migrations that were applied."""

    applied: list[str]
