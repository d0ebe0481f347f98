"""Builds the CDK app of a stage. Importing CDK starts Node, so it is imported in here only."""

from pathlib import Path
from typing import TYPE_CHECKING

from pixsift_infra.node import use_node
from pixsift_infra.stage import Stage

if TYPE_CHECKING:
    from aws_cdk import App

LOCAL = "local"


def stack_names(stage: Stage) -> list[str]:
    """Names of the stage's stacks, in the order they are deployed in."""
    if stage.name == LOCAL:
        return ["PixsiftEvents"]
    parts = ("Events", "Network", "Database", "Compute", "Observability")
    return [f"{stage.resource_prefix}-{part}" for part in parts]


def build(stage: Stage, outdir: Path) -> "App":
    """The whole app; an open cdk-nag finding makes its ``synth()`` raise."""
    use_node()
    from aws_cdk import App, DefaultStackSynthesizer, Tags, Validations
    from cdk_nag import AwsSolutionsChecks

    from pixsift_infra.compute import ComputeStack
    from pixsift_infra.database import DatabaseStack
    from pixsift_infra.events import EventsStack
    from pixsift_infra.network import NetworkStack
    from pixsift_infra.observability import ObservabilityStack

    app = App(
        outdir=str(outdir),
        analytics_reporting=False,
        default_stack_synthesizer=DefaultStackSynthesizer(generate_bootstrap_version_rule=False),
    )
    Validations.of(app).add_plugins(AwsSolutionsChecks(app))
    names = stack_names(stage)
    options = {"termination_protection": stage.protected}
    EventsStack(app, names[0], stage, **options)
    if stage.name != LOCAL:
        NetworkStack(app, names[1], stage, **options)
        DatabaseStack(app, names[2], stage, **options)
        ComputeStack(app, names[3], stage, **options)
        ObservabilityStack(app, names[4], stage, **options)
        for key, value in {"pixsift-stage": stage.name, **stage.tags}.items():
            Tags.of(app).add(key, value)
    return app
