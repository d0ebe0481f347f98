"""Synthesizes the templates into ``cdk.out/`` (``make synth``); the only reader of the environment.

The bootstrap version rule is left out: it asks for an SSM parameter that only a bootstrapped
account has, and none of our resources needs the bootstrap.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from pixsift_infra.node import use_node

if TYPE_CHECKING:
    from aws_cdk import App

REPOSITORY = Path(__file__).resolve().parents[1]
COMMITTED_TEMPLATE = REPOSITORY / "localstack" / "events.template.json"


def build(outdir: Path) -> "App":
    """The whole app; an open cdk-nag finding makes its ``synth()`` raise."""
    use_node()
    # Importing CDK starts Node.
    from aws_cdk import App, DefaultStackSynthesizer, Validations
    from cdk_nag import AwsSolutionsChecks

    from pixsift_infra.stack import EventsStack

    app = App(
        outdir=str(outdir),
        analytics_reporting=False,
        default_stack_synthesizer=DefaultStackSynthesizer(generate_bootstrap_version_rule=False),
    )
    Validations.of(app).add_plugins(AwsSolutionsChecks(app))
    EventsStack(app, "PixsiftEvents")
    return app


def main() -> None:
    """Synthesize, and keep the copy that LocalStack gets, which needs no Node, up to date."""
    outdir = Path(os.environ.get("CDK_OUTDIR", REPOSITORY / "cdk.out"))
    build(outdir).synth()
    COMMITTED_TEMPLATE.write_bytes((outdir / "PixsiftEvents.template.json").read_bytes())


if __name__ == "__main__":
    main()
