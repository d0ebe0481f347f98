"""Brings a stage to a release: stacks, migration, services, doctor; or back to the previous one.
Every step is repeatable, and an interrupted run continues when it is started again: a stack that is
as it should be is left alone, a migration that was applied is skipped, and what a failed first
deployment left is removed. After a failed migration the services keep the previous release
(docs/adr/0161).

``preflight`` only reads, and raises what would stop the deployment later. ``plan`` only makes
change sets, and throws them away.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from pixsift.adapters.aws.account import Account, BucketFacts
from pixsift.adapters.aws.container_images import EcrImages
from pixsift.adapters.aws.ecs_tasks import EcsTasks, TaskPlace
from pixsift.adapters.aws.stacks import Proposal, StackFacts, Stacks
from pixsift.answers.deployment import TaskReport
from pixsift.core.deployment import (
    COMPUTE,
    Deployment,
    Images,
    PlannedStack,
    after_roll_back,
    check_quota,
    check_registry,
    check_subnets,
    gpu_quota,
    losses,
    parameters_for,
    release_parameters,
    state_of,
    types_of,
)
from pixsift.errors import ConflictError, DependencyDownError, PixsiftError, SettingError

_DEPENDENCY_DOWN = 3
"""The exit status of a process whose dependency does not answer."""


@dataclass(frozen=True, slots=True)
class Tools:
    """The adapters to AWS. say: shows one line of progress."""

    stacks: Stacks
    tasks: EcsTasks
    account: Account
    images: EcrImages
    say: Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Ground:
    """The account and region of a deployment, with notes about them."""

    account: str
    region: str
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Deployed:
    """What a deployment did. doctor: None where it was not run."""

    images: Images
    stacks: Mapping[str, str]
    doctor: TaskReport | None
    notes: tuple[str, ...] = field(default=())


def find_ground(deployment: Deployment, tools: Tools) -> Ground:
    """The account and region of the credentials. Raises SettingError for another account than the
    stage's."""
    account, region = tools.account.identity()
    if deployment.account and deployment.account != account:
        raise SettingError(
            f"the credentials are of account {account}, and account = {deployment.account!r}: use "
            "others (AWS_PROFILE), or correct the stage"
        )
    return Ground(account, region, ())


def preflight(deployment: Deployment, tools: Tools, images: Images | None = None) -> Ground:
    """Check everything before anything is changed. images: those that were built elsewhere. Raises
    SettingError, with setting and remedy, for the first problem.
    """
    ground = find_ground(deployment, tools)
    account, region = ground.account, ground.region
    for name in deployment.templates:
        found = tools.stacks.find(name)
        if found is not None:
            _refuse_stuck(found)
    if deployment.vpc_id:
        check_subnets(deployment, tools.account.subnets(deployment.subnet_ids))
    notes = [_raw_bucket(deployment, tools, region), _secret(deployment, tools)]
    _refuse_leftovers(deployment, tools, account, region)
    code = gpu_quota(deployment)
    notes.append(check_quota(deployment, tools.account.quota(code) if code else None))
    if images is not None:
        notes += [_given_image(each, deployment, tools, account=account, region=region)
                  for each in (images.gpu, images.services)]  # fmt: skip
    return Ground(account, region, tuple(note for note in notes if note))


def _refuse_stuck(found: StackFacts) -> None:
    if state_of(found.status) == "stuck":
        raise ConflictError(
            f"stack {found.name} is {found.status}, which AWS lets nothing change: continue its "
            "update rollback (or delete it) in CloudFormation's console, then deploy again"
        )


def _raw_bucket(deployment: Deployment, tools: Tools, region: str) -> str | None:
    name = deployment.raw_bucket
    if not name:
        return None
    found = tools.account.bucket(name)
    if found == "absent":
        raise SettingError(
            f"events.raw_bucket: bucket {name} does not exist: name an existing one, or leave it "
            "empty for a new one"
        )
    if isinstance(found, BucketFacts) and found.tells_event_bridge is not None:
        if found.region not in (None, region):
            raise SettingError(
                f"events.raw_bucket: bucket {name} is in {found.region}, the stage in {region}: "
                "set region to the bucket's"
            )
        if not found.tells_event_bridge:
            raise SettingError(
                f"events.raw_bucket: bucket {name} does not send its events to EventBridge: switch "
                f"that on in its properties ({found.other_targets} other notifications stay as "
                "they are)"
            )
        return None
    if not deployment.raw_account:
        raise SettingError(
            f"events.raw_bucket: bucket {name} refuses these credentials: set events.raw_account "
            "if it belongs to another account, or grant s3:ListBucket and "
            "s3:GetBucketNotification"
        )
    return f"bucket {name} of account {deployment.raw_account} could not be looked at"


def _secret(deployment: Deployment, tools: Tools) -> str | None:
    if not deployment.secret_arn:
        return None
    known = tools.account.has_secret(deployment.secret_arn)
    if known is None:
        return f"secret {deployment.secret_arn} could not be looked at"
    if not known:
        raise SettingError(
            f"database.secret_arn: there is no secret {deployment.secret_arn} in this account and "
            "region"
        )
    return None


def _refuse_leftovers(deployment: Deployment, tools: Tools, account: str, region: str) -> None:
    """Buckets outlive their stack, and a new stack cannot create them again."""
    found = tools.stacks.find(deployment.stack("Events"))
    if found is not None and state_of(found.status) != "half_made":
        return
    for pattern in deployment.own_buckets:
        name = pattern.format(account=account, region=region)
        if tools.account.bucket(name) != "absent":
            raise ConflictError(
                f"bucket {name} exists already, from a stack that was deleted or of another owner: "
                "set another prefix, or empty and delete the bucket"
            )


def _given_image(
    image: str, deployment: Deployment, tools: Tools, *, account: str, region: str
) -> str | None:
    repository = check_registry(image, deployment, account, region)
    if repository is None:
        return f"image {image} is outside ECR: that it can be pulled was not checked"
    if tools.images.digest(repository, image.partition("@")[2]) is None:
        raise SettingError(f"image {image} is not in ECR: push it first")
    return None


def plan(deployment: Deployment, images: Images | None, tools: Tools) -> list[PlannedStack]:
    """What a deployment would change, stack by stack. images: None plans with the running ones."""
    known: dict[str, str] = {}
    plans = []
    for name, template in deployment.templates.items():
        found = tools.stacks.find(name)
        state = state_of(found.status if found else None)
        if found is None or state in ("absent", "half_made"):
            plans.append(PlannedStack(name, "create", types=tuple(types_of(template))))
            continue
        if state != "ready":
            plans.append(PlannedStack(name, f"cannot be planned: it is {found.status}"))
            continue
        chosen = _chosen(deployment, name, found, images)
        try:
            values = parameters_for(name, template, known, chosen)
            proposal = tools.stacks.propose(
                name, template, values, bucket=known.get("DerivedBucketName", "")
            )
        except SettingError as error:
            plans.append(PlannedStack(name, f"cannot be planned: {error}"))
            continue
        known |= found.outputs
        if proposal is None:
            plans.append(PlannedStack(name, "nothing"))
            continue
        tools.stacks.discard(proposal)
        plans.append(PlannedStack(name, "update", changes=proposal.changes))
    return plans


def _chosen(
    deployment: Deployment, name: str, found: StackFacts, images: Images | None
) -> dict[str, str]:
    if name != deployment.stack(COMPUTE):
        return {}
    now = found.parameters
    return release_parameters(
        now, images or Images(now.get("GpuImage", ""), now.get("ServicesImage", ""))
    )


def deploy(
    deployment: Deployment,
    images: Images,
    tools: Tools,
    *,
    allow_loss: bool = False,
    examine: bool = True,
) -> Deployed:
    """Deploy ``images``. Call ``preflight`` first.

    allow_loss: let a change remove or replace resources that hold data. examine: run the doctor at
    the end. Raises ConflictError for such a change, PixsiftError for a failed migration,
    SettingError with AWS's reasons for a failed stack.
    """
    run = _Run(deployment, images, tools, allow_loss=allow_loss)
    compute = deployment.stack(COMPUTE)
    names = list(deployment.templates)
    for name in names[: names.index(compute)]:
        run.bring(name, {})
    run.release(compute)
    for name in names[names.index(compute) + 1 :]:
        run.bring(name, {})
    doctor = run.task("Doctor") if examine else None
    return Deployed(images, run.done, doctor)


def roll_back(deployment: Deployment, tools: Tools, *, examine: bool = True) -> Deployed:
    """Return the services to the previous release; the schema stays, because migrations only add.
    The present release becomes the previous one, so a second call goes forward again. Raises
    ConflictError without a previous release.
    """
    name = deployment.stack(COMPUTE)
    found = tools.stacks.find(name)
    if found is None or state_of(found.status) != "ready":
        status = found.status if found else "absent"
        raise ConflictError(f"stack {name} is {status}: there is no release to return to")
    wanted = after_roll_back(found.parameters, name)
    images = Images(wanted["GpuImage"], wanted["ServicesImage"])
    run = _Run(deployment, images, tools, allow_loss=False)
    for other in deployment.templates:
        facts = tools.stacks.find(other)
        run.known |= facts.outputs if facts else {}
    run.change(name, None, wanted)
    return Deployed(images, run.done, run.task("Doctor") if examine else None)


class _Run:
    """One running deployment. known: outputs so far; done: the result of each stack."""

    def __init__(
        self, deployment: Deployment, images: Images, tools: Tools, *, allow_loss: bool
    ) -> None:
        self._deployment, self._images, self._tools = deployment, images, tools
        self._allow_loss = allow_loss
        self.known: dict[str, str] = {}
        self.done: dict[str, str] = {}

    def bring(self, name: str, chosen: Mapping[str, str]) -> None:
        """Create or update a stack from its template, after any running operation on it has
        ended."""
        template = self._deployment.templates[name]
        found = self._settled(name)
        self.change(name, template, parameters_for(name, template, self.known, chosen))
        if found is None and self._deployment.protected:
            self._tools.stacks.protect(name, protected=True)

    def release(self, name: str) -> None:
        """The compute stack: jobs at the new release, migration, then services."""
        template = self._deployment.templates[name]
        found = self._settled(name)
        current = dict(found.parameters) if found else {}
        migrate = {"MigrateImage": self._images.services}
        if current.get("Running") == "yes":
            # The template that is already deployed, so that nothing else changes yet.
            self.known |= found.outputs if found else {}
            self.change(name, None, migrate)
        else:
            wanted = {**release_parameters(current, self._images), "Running": "no"}
            self.bring(name, wanted)
        self._migrate()
        self.change(
            name, template,
            parameters_for(name, template, self.known, release_parameters(current, self._images)),
        )  # fmt: skip

    def _migrate(self) -> None:
        ended = self.task("Migrate")
        if ended.status == 0:
            return
        last = "; ".join(ended.lines[-3:]) or ended.reason
        if ended.status == _DEPENDENCY_DOWN:
            raise DependencyDownError(
                f"the ledger does not answer the tasks: {last}: check database and network of the "
                "stage; the services were not changed"
            )
        if ended.status is None:
            raise SettingError(
                f"the migration did not start: {ended.reason}: check the services image and the "
                "way out (network.egress); the services were not changed"
            )
        raise PixsiftError(
            f"the migration ended with status {ended.status}: {last}: the services were not "
            "changed",
            code="migration_failed",
        )

    def task(self, name: str) -> TaskReport:
        """Run a one-off task, and wait for its end."""
        place = TaskPlace(
            self.known["ClusterName"], self.known["SubnetIds"].split(","),
            self.known["TaskSecurityGroupId"], self._deployment.public_tasks,
        )  # fmt: skip
        self._tools.say(f"{name.lower()}: runs")
        started = time.monotonic()
        ended = self._tools.tasks.run(self.known[f"{name}TaskArn"], place)
        how = "did not start" if ended.status is None else f"status {ended.status}"
        self._tools.say(f"{name.lower()}: {how} after {time.monotonic() - started:.0f} s")
        return ended

    def change(self, name: str, template: str | None, values: Mapping[str, str]) -> None:
        """Make and execute a change set; do nothing if the stack has that state already."""
        stacks, say = self._tools.stacks, self._tools.say
        proposal = stacks.propose(
            name, template, values, bucket=self.known.get("DerivedBucketName", "")
        )
        if proposal is None:
            say(f"{name}: up to date")
            self.done.setdefault(name, "unchanged")
            found = stacks.find(name)
            self.known |= found.outputs if found else {}
            return
        self._refuse_losses(proposal)
        say(f"{name}: {len(proposal.changes)} changes")
        started = time.monotonic()
        found = stacks.apply(proposal)
        self.known |= found.outputs
        created = found.status.startswith("CREATE") or self.done.get(name) == "created"
        self.done[name] = "created" if created else "updated"
        say(f"{name}: {self.done[name]} in {time.monotonic() - started:.0f} s")

    def _refuse_losses(self, proposal: Proposal) -> None:
        lost = losses(proposal.changes)
        if lost and not self._allow_loss:
            self._tools.stacks.discard(proposal)
            raise ConflictError(
                f"stack {proposal.stack}: this would lose data: {', '.join(map(str, lost))}: undo "
                "that change of the stage, or allow it expressly",
                code="would_lose_data",
            )

    def _settled(self, name: str) -> StackFacts | None:
        """The stack, once no operation is running; the remains of a failed first deployment are
        removed."""
        stacks, say = self._tools.stacks, self._tools.say
        found = stacks.find(name)
        if found is not None and state_of(found.status) == "busy":
            say(f"{name}: {found.status}, waiting for its end")
            found = stacks.wait(name)
        if found is None or state_of(found.status) == "absent":
            return None
        _refuse_stuck(found)
        if state_of(found.status) == "half_made":
            say(f"{name}: {found.status}: its first deployment failed, it is made anew")
            stacks.remove(name)
            return None
        return found
