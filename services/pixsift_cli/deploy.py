"""``pixsift deploy``: options and lines; the steps are ``pixsift.operations.deploy``."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from pixsift.answers.deployment import (
    DeploymentPlan,
    DeploymentReport,
    ReleaseImages,
)
from pixsift.core.cost import Estimate, estimate
from pixsift.core.deployment import Deployment, Images, PlannedStack, check_image
from pixsift.errors import RequestError
from pixsift.operations import deploy as steps
from pixsift.operations.build_images import build_images
from pixsift.operations.deploy import Deployed, Ground, Tools
from pixsift_cli import stage as stages
from pixsift_cli import wiring
from pixsift_cli.common import JsonOption, emit
from pixsift_cli.cost import table
from pixsift_cli.terminal import say

if TYPE_CHECKING:
    from pixsift_infra.stage import Stage


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(deploy)


def deploy(
    *,
    stage: Annotated[str, typer.Option(help="infra/stages/NAME.toml, or a file.")],
    plan: Annotated[
        bool, typer.Option("--plan", help="Print what would change and what a month costs.")
    ] = False,
    rollback: Annotated[
        bool, typer.Option("--rollback", help="Return the services to the previous release.")
    ] = False,
    image_only: Annotated[
        bool, typer.Option("--image-only", help="Build and push the images, deploy nothing.")
    ] = False,
    gpu_image: Annotated[
        str, typer.Option(help="Image with a model, built elsewhere: repository@sha256:...")
    ] = "",
    services_image: Annotated[
        str, typer.Option(help="Image without a model, built elsewhere: repository@sha256:...")
    ] = "",
    engine: Annotated[
        str, typer.Option(help="What builds: docker, podman or buildah; else the first found.")
    ] = "",
    build_arg: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE of the Dockerfiles, such as MODEL.")
    ] = None,
    images_per_day: Annotated[
        float, typer.Option(min=0, max=1e12, help="For the price in a plan.")
    ] = 100_000,
    allow_data_loss: Annotated[
        bool,
        typer.Option("--allow-data-loss", help="Let buckets, queues, databases be replaced."),
    ] = False,
    doctor: Annotated[bool, typer.Option(help="Run pixsift doctor as a task at the end.")] = True,
    as_json: JsonOption = False,
) -> None:
    """Deploy a stage to AWS: images, stacks, migration, services, doctor; rerun to continue."""
    if sum((plan, rollback, image_only)) > 1:
        raise RequestError("--plan, --rollback and --image-only exclude each other")
    given = _given(gpu_image, services_image)
    arguments = _arguments(build_arg or [])
    settings = stages.read(stage)
    tools = wiring.deploy_tools(settings.region, _say)
    if rollback:
        known = stages.named(settings)
        where = steps.find_ground(known, tools)
        _show(steps.roll_back(known, tools, examine=doctor), where, as_json)
        return
    wanted = stages.deployment(settings)
    ground = steps.preflight(wanted, tools, given)
    for note in ground.notes:
        _say(f"note: {note}")
    if plan:
        found = steps.plan(wanted, given, tools)
        price = estimate(images_per_day, prices=stages.prices(settings))
        _show_plan(found, price, images_per_day, ground, as_json)
        return
    images = given or _build(settings, wanted, tools, engine, arguments)
    if image_only:
        emit(ReleaseImages(images), as_json, _images_lines(images))
        return
    try:
        done = steps.deploy(wanted, images, tools, allow_loss=allow_data_loss, examine=doctor)
    except BaseException:
        _say(f"to go on with these images: --gpu-image {images.gpu} "
             f"--services-image {images.services}")  # fmt: skip
        raise
    _show(done, ground, as_json)


def _given(gpu: str, services: str) -> Images | None:
    if not gpu and not services:
        return None
    if not (gpu and services):
        raise RequestError("--gpu-image and --services-image belong together: name both")
    return Images(check_image(gpu, "--gpu-image"), check_image(services, "--services-image"))


def _arguments(given: Sequence[str]) -> dict[str, str]:
    for each in given:
        if "=" not in each:
            raise RequestError(f"--build-arg {each!r} is not NAME=VALUE")
    return dict(each.split("=", 1) for each in given)


def _build(
    settings: "Stage", wanted: Deployment, tools: Tools, engine: str, arguments: Mapping[str, str]
) -> Images:
    folder = stages.checkout()
    stages.check_authorities(settings, folder)
    return build_images(wanted, folder, tools, engine=engine, arguments=arguments)


def _say(line: str) -> None:
    say(line, err=True)


def _images_lines(images: Images) -> list[str]:
    return [f"--gpu-image {images.gpu}", f"--services-image {images.services}"]


def _show_plan(
    found: Sequence[PlannedStack], price: Estimate, images_per_day: float, ground: Ground,
    as_json: bool,
) -> None:  # fmt: skip
    facts = DeploymentPlan(
        account=ground.account, region=ground.region, notes=list(ground.notes),
        stacks=list(found),
        images_per_day=images_per_day, month=price.month,
    )  # fmt: skip
    lines = [line for each in found for line in _plan_lines(each)]
    words = f"at {images_per_day:,.0f} images a day, database as db.t4g.medium:"
    emit(facts, as_json, [*lines, "", words, *table(price)])


def _plan_lines(plan: PlannedStack) -> list[str]:
    return [
        f"{plan.stack}: {plan.action}",
        *(f"  {count:3} {name}" for name, count in plan.types),
        *(f"  {'LOSES DATA: ' if change.loses_data() else ''}{change}" for change in plan.changes),
    ]


def _show(done: Deployed, ground: Ground, as_json: bool) -> None:
    """Show what was done; exit status 1 where the doctor found something wrong."""
    is_well = done.doctor is None or done.doctor.status == 0
    facts = DeploymentReport(
        ok=is_well, account=ground.account, region=ground.region, notes=list(ground.notes),
        stacks=dict(done.stacks), images=done.images,
        doctor=done.doctor,
    )  # fmt: skip
    lines = [f"{name}: {what}" for name, what in done.stacks.items()]
    if done.doctor is not None:
        lines += done.doctor.lines or [f"doctor: {done.doctor.reason}"]
    emit(facts, as_json, [*lines, *_images_lines(done.images)])
    if not is_well:
        raise typer.Exit(1)
