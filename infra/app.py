"""Synthesizes the templates of a stage; the only reader of the synth-time environment.

``PIXSIFT_STAGE`` names the stage (``cdk.json`` runs this file too), ``CDK_OUTDIR`` the folder. With
``--write-local`` the template of the stage ``local`` is copied to where LocalStack finds it, and
the same with a second embedding space; only ``make synth`` asks for that. The bootstrap version
rule is left out: it asks for an SSM parameter that only a bootstrapped account has, and none of our
resources needs the bootstrap.
"""

import os
import sys
from pathlib import Path

from pixsift_infra.stage import StageError, read_stage, with_shadow
from pixsift_infra.synth import build

REPOSITORY = Path(__file__).resolve().parents[1]
COMMITTED_TEMPLATE = REPOSITORY / "localstack" / "events.template.json"
COMMITTED_SHADOW_TEMPLATE = REPOSITORY / "localstack" / "events-shadow.template.json"


def main() -> None:
    """Synthesize one stage; with ``--write-local`` the local one, and keep its copy up to date."""
    outdir = Path(os.environ.get("CDK_OUTDIR", REPOSITORY / "cdk.out"))
    write_local = "--write-local" in sys.argv
    name = "local" if write_local else os.environ.get("PIXSIFT_STAGE", "local")
    try:
        stage = read_stage(name)
    except StageError as error:
        sys.exit(str(error))
    build(stage, outdir).synth()
    if write_local:
        template = outdir / "PixsiftEvents.template.json"
        COMMITTED_TEMPLATE.write_bytes(template.read_bytes())
        build(with_shadow(stage), outdir).synth()
        COMMITTED_SHADOW_TEMPLATE.write_bytes(template.read_bytes())


if __name__ == "__main__":
    main()
