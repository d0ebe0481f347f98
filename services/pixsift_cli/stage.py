"""A stage as ``pixsift deploy`` needs it: its file read, its templates synthesized, its price list.

CDK and Node are needed for that, and are imported in here only: the extra ``infra`` has them.
"""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from pixsift.core.cost import PRICES
from pixsift.core.deployment import Deployment, compact
from pixsift.errors import Remedy, RequestError, SettingError
from pixsift.extras import require

if TYPE_CHECKING:
    from pixsift_infra.stage import Stage

_NEEDED = ("aws_cdk", "cdk_nag", "constructs", "pixsift_infra")
_WAY_OUT = {"nat": PRICES["nat_month"], "endpoints": 146.0, "public": 4.0}
"""Dollars a month: one gateway, ten interfaces in two zones, one task's address."""
RDS_AUTHORITIES = "certs/rds-global-bundle.pem"


def read(name: str) -> "Stage":
    """The stage of that name (``infra/stages/NAME.toml``) or of that file.

    Raises UserError: the extra is missing, or the file is not as it must be.
    """
    require("pixsift deploy", _NEEDED, extra="infra")
    from pixsift_infra.stage import STAGES, StageError, read_stage
    from pixsift_infra.synth import LOCAL

    here = Path("infra", "stages")
    try:
        stage = read_stage(name, here if here.is_dir() else STAGES)
    except StageError as error:
        raise RequestError(str(error)) from error
    if stage.name == LOCAL:
        raise RequestError("the stage local is for the emulator of pixsift up: name another one")
    return stage


def deployment(stage: "Stage") -> Deployment:
    """Its templates and what the rest of a deployment needs to know. Takes Node and some 20 s.

    Raises SettingError without Node.
    """
    from pixsift_infra.node import find_node
    from pixsift_infra.synth import build, stack_names

    if find_node() is None:
        raise SettingError(
            "CDK needs Node.js, which is not installed",
            code="extra_missing", remedy=Remedy("install_extra", {"extra": "infra"}),
        )  # fmt: skip
    with TemporaryDirectory() as folder:
        build(stage, Path(folder)).synth()
        templates = {
            name: compact((Path(folder) / f"{name}.template.json").read_text("utf-8"))
            for name in stack_names(stage)
        }
    return described(stage, templates)


def named(stage: "Stage") -> Deployment:
    """The stage with the names of its stacks only: a roll-back needs no templates, and no Node."""
    from pixsift_infra.synth import stack_names

    return described(stage, dict.fromkeys(stack_names(stage), "{}"))


def described(stage: "Stage", templates: Mapping[str, str]) -> Deployment:
    """The stage with templates that were synthesized already."""
    events, network, compute = stage.events, stage.network, stage.compute
    roles = ("curated", "derived") if events.raw_bucket else ("raw", "curated", "derived")
    suffix = "" if events.bucket_names == "plain" else "-{account}-{region}"
    return Deployment(
        stage=stage.name, prefix=stage.resource_prefix, templates=templates, account=stage.account,
        region=stage.region, protected=stage.protected,
        public_tasks=network.egress == "public" and not network.vpc_id,
        closed_network=network.egress == "endpoints" and not network.vpc_id,
        own_buckets=tuple(f"{stage.resource_prefix}-{role}{suffix}" for role in roles),
        raw_bucket=events.raw_bucket, raw_account=events.raw_account, vpc_id=network.vpc_id,
        subnet_ids=network.subnet_ids, secret_arn=stage.database.secret_arn,
        gpu_instances=compute.instance_types if compute.consumer == "gpu" else (),
        spot=compute.spot, most_consumers=compute.max_consumers * len(events.spaces),
    )  # fmt: skip


def prices(stage: "Stage") -> dict[str, float]:
    """The price list, with what this stage has of its own: its way out, its database."""
    database = PRICES["database_month"]
    if stage.database.kind == "given":
        database = 0.0
    elif stage.database.kind == "rds" and stage.database.multi_az:
        database *= 2
    way_out = 0.0 if stage.network.vpc_id else _WAY_OUT[stage.network.egress]
    return {**PRICES, "database_month": database, "nat_month": way_out}


def checkout() -> Path:
    """The folder that images are built from. Raises SettingError where that is not at hand."""
    package = find_spec("pixsift_infra")
    origin = Path(package.origin).parents[2] if package and package.origin else Path()
    for folder in (Path.cwd(), origin):
        if (folder / "Dockerfile.services").is_file():
            return folder
    raise SettingError(
        "images are built from a checkout of pixsift, and this is not one: run it in a checkout, "
        "or name both images with --gpu-image and --services-image"
    )


def check_authorities(stage: "Stage", folder: Path) -> None:
    """Tasks verify RDS with the authorities in their image. Raises SettingError without them."""
    if stage.database.kind != "given" and not (folder / RDS_AUTHORITIES).is_file():
        raise SettingError(
            f"{RDS_AUTHORITIES} is missing, with which tasks verify the database: certs/README.md "
            "has the line that fetches it"
        )
