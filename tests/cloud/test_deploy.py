"""``pixsift deploy`` against MiniStack over HTTP: its stacks, its tasks, its way back.

What MiniStack does not know is taken out of the templates first, and the list of it is asserted.
Tasks run as processes of this machine (``docker_stand_in``): the migration is the real one, on a
real PostgreSQL whose secret it reads from MiniStack.
"""

import json
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from cloud.conftest import Cloud, running
from pixsift.adapters.aws.account import Account
from pixsift.adapters.aws.container_images import EcrImages
from pixsift.adapters.aws.ecs_tasks import EcsTasks
from pixsift.adapters.aws.stacks import Proposal, Stacks
from pixsift.adapters.local.embedded_postgres import EmbeddedPostgres
from pixsift.adapters.postgres.migrate import pending
from pixsift.core.deployment import Deployment, Images
from pixsift.errors import ConflictError, DependencyDownError, SettingError
from pixsift.operations import deploy as steps
from pixsift.operations.deploy import Tools
from pixsift_cli import stage as stages
from pixsift_infra.stage import Stage

HERE = Path(__file__).parent
UNKNOWN_TO_MINISTACK = {
    "AWS::ApplicationAutoScaling::ScalableTarget",
    "AWS::ApplicationAutoScaling::ScalingPolicy",
    "AWS::CloudWatch::Alarm with metric math",
    "AWS::EC2::FlowLog",
}
"""Of the types in the stage deployed here; what only larger stages have is in its own test."""
PREFIX = "pixsift-trial"


def image(letter: str, repository: str = "services") -> str:
    return (
        f"000000000000.dkr.ecr.us-east-1.amazonaws.com/{PREFIX}/{repository}@sha256:{letter * 64}"
    )


FIRST = Images(image("a", "gpu-consumer"), image("a"))
SECOND = Images(image("b", "gpu-consumer"), image("b"))


def without_unknown(template: str, removed: set[str]) -> str:
    """The template less what MiniStack refuses, and less what refers to that."""
    document = json.loads(template)
    resources = document["Resources"]
    gone: set[str] = set()
    for name, resource in resources.items():
        kind = resource["Type"]
        if kind == "AWS::CloudWatch::Alarm" and "Metrics" in resource["Properties"]:
            kind += " with metric math"
        if kind in UNKNOWN_TO_MINISTACK:
            removed.add(kind)
            gone.add(name)
    while True:
        referring = {
            name
            for name, resource in resources.items()
            if name not in gone
            and any(f'"Ref": "{g}"' in json.dumps(resource) or f'["{g}", ' in json.dumps(resource)
                    for g in gone)
        }  # fmt: skip
        if not referring:
            break
        gone |= referring
    for name in gone:
        del resources[name]
    return json.dumps(document)


class MiniStackStacks(Stacks):
    """MiniStack's change sets overlook a condition that turns true; its UpdateStack does not."""

    def propose(
        self, name: str, template: str | None, parameters: Mapping[str, str], *, bucket: str = ""
    ) -> Proposal | None:
        proposal = super().propose(name, template, parameters, bucket=bucket)
        found = self.find(name)
        if proposal is None and found and found.parameters.get("Running", "yes") == "no":
            assert template is not None and parameters["Running"] == "yes"
            values = [{"ParameterKey": k, "ParameterValue": v} for k, v in parameters.items()]
            self._client.update_stack(
                StackName=name, TemplateBody=template, Parameters=values,
                Capabilities=["CAPABILITY_NAMED_IAM"],
            )  # fmt: skip
            self.wait(name)
        return proposal


@dataclass
class World:
    """A MiniStack with a secret of a real database, and a stage that is to be deployed there."""

    cloud: Cloud
    deployment: Deployment
    tools: Tools
    database_url: str
    secret: str
    lines: list[str]
    removed: set[str]

    def stack(self, part: str) -> Any:
        return self.cloud.client("cloudformation").describe_stacks(
            StackName=f"{PREFIX}-{part}"
        )["Stacks"][0]  # fmt: skip

    def services(self) -> dict[str, str]:
        """Image of each service, as ECS has it."""
        ecs = self.cloud.client("ecs")
        arns = ecs.list_services(cluster=PREFIX)["serviceArns"]
        described = ecs.describe_services(cluster=PREFIX, services=arns)["services"]
        return {
            s["serviceName"]: ecs.describe_task_definition(taskDefinition=s["taskDefinition"])[
                "taskDefinition"]["containerDefinitions"][0]["image"]
            for s in described
        }  # fmt: skip

    def write_secret(self, **changed: str) -> None:
        parts = conninfo_to_dict(self.database_url)
        document = {
            "username": parts["user"], "password": "unused", "dbname": parts["dbname"],
            "host": parts["host"], **changed,
        }  # fmt: skip
        self.cloud.client("secretsmanager").put_secret_value(
            SecretId=self.secret, SecretString=json.dumps(document)
        )


@pytest.fixture(scope="module")
def environment() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def world(
    tmp_path_factory: pytest.TempPathFactory,
    postgres: EmbeddedPostgres,
    environment: pytest.MonkeyPatch,
) -> Iterator[World]:
    name = f"d_{uuid4().hex[:12]}"
    with psycopg.connect(postgres.url("postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    folder = tmp_path_factory.mktemp("ministack-deploy")
    machine = {
        "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
        "NO_PROXY": "127.0.0.1", "PATH": os.environ["PATH"], "HOME": str(folder),
        "PIXSIFT_STATE_DIR": str(folder / "no-loop"),
    }  # fmt: skip
    given: dict[str, str] = {}
    # Without enforcement: over plain HTTP the queues' own policies rightly refuse S3, and what a
    # role may do is for test_least_privilege.
    with running(
        folder,
        AUTH="false",
        PYTHONPATH=str(HERE / "docker_stand_in"),
        STAND_IN_PIXSIFT=str(Path(sys.executable).parent / "pixsift"),
        STAND_IN_ENVIRONMENT_FILE=str(folder / "machine.json"),
    ) as cloud:
        given |= {**machine, "AWS_ENDPOINT_URL": cloud.url}
        (folder / "machine.json").write_text(json.dumps(given))
        for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL"):
            environment.setenv(variable, given[variable])
        environment.setenv("AWS_DEFAULT_REGION", "us-east-1")
        secret = cloud.client("secretsmanager").create_secret(
            Name="ledger", SecretString="{}"
        )["ARN"]  # fmt: skip
        stage = Stage.model_validate({
            "name": "trial", "protected": True,
            "network": {"egress": "public"}, "compute": {"consumer": "cpu"},
            "database": {"kind": "given", "secret_arn": secret},
        })  # fmt: skip
        whole = stages.deployment(stage)
        removed: set[str] = set()
        cut = {n: without_unknown(text, removed) for n, text in whole.templates.items()}
        lines: list[str] = []
        quick = MiniStackStacks("us-east-1", poll_seconds=0.1)
        tools = Tools(
            quick, EcsTasks("us-east-1", poll_seconds=0.1), Account("us-east-1"),
            EcrImages("us-east-1"), lines.append,
        )  # fmt: skip
        made = World(
            cloud, replace(whole, templates=cut), tools, postgres.url(name), secret, lines, removed
        )
        made.write_secret()
        yield made


@pytest.fixture(scope="module")
def deployed(world: World) -> World:
    """After the first deployment."""
    ground = steps.preflight(world.deployment, world.tools)
    assert ground.account == "000000000000" and ground.notes == ()
    done = steps.deploy(world.deployment, FIRST, world.tools)
    assert set(done.stacks.values()) == {"created"} and len(done.stacks) == 5
    assert done.doctor is not None and done.doctor.status == 0, done.doctor
    return world


def test_first_deployment__migrates_before_there_is_any_service(deployed: World) -> None:
    assert deployed.removed == UNKNOWN_TO_MINISTACK
    assert pending(deployed.database_url) == []
    assert deployed.services() == {"consumer": FIRST.gpu, "curator": FIRST.services}
    said = "\n".join(deployed.lines)
    assert said.index("migrate: status 0") < said.index("Observability")
    assert deployed.stack("Compute")["EnableTerminationProtection"] is True


@pytest.mark.full
def test_deployment_again__changes_nothing(deployed: World) -> None:
    done = steps.deploy(deployed.deployment, FIRST, deployed.tools, examine=False)
    assert set(done.stacks.values()) == {"unchanged"}


def test_failed_migration__switches_nothing_and_can_be_repeated(deployed: World) -> None:
    deployed.write_secret(dbname="nowhere")
    with pytest.raises(DependencyDownError, match=r"nowhere.*the services were not changed"):
        steps.deploy(deployed.deployment, SECOND, deployed.tools, examine=False)
    assert deployed.services() == {"consumer": FIRST.gpu, "curator": FIRST.services}
    deployed.write_secret()
    done = steps.deploy(deployed.deployment, SECOND, deployed.tools, examine=False)
    assert done.stacks[f"{PREFIX}-Compute"] == "updated"
    assert deployed.services() == {"consumer": SECOND.gpu, "curator": SECOND.services}
    back = steps.roll_back(deployed.deployment, deployed.tools, examine=False)
    assert back.images == FIRST
    assert deployed.services() == {"consumer": FIRST.gpu, "curator": FIRST.services}


def test_plan__names_the_changes_and_changes_nothing(deployed: World) -> None:
    cloudformation = deployed.cloud.client("cloudformation")

    def change_sets() -> list[Any]:
        name = f"{PREFIX}-Compute"
        return list(cloudformation.list_change_sets(StackName=name)["Summaries"])

    before, waiting = deployed.services(), change_sets()
    plans = {p.stack: p for p in steps.plan(deployed.deployment, SECOND, deployed.tools)}
    changes = plans[f"{PREFIX}-Compute"].changes
    assert {"ConsumerTask", "CuratorTask", "MigrateTask"} <= {c.logical_id for c in changes}
    assert plans[f"{PREFIX}-Events"].action == "nothing"
    assert deployed.services() == before and change_sets() == waiting


def test_change_that_loses_data__is_refused(deployed: World) -> None:
    name = f"{PREFIX}-Events"
    document = json.loads(deployed.deployment.templates[name])
    bucket = next(k for k, r in document["Resources"].items()
                  if r["Type"] == "AWS::S3::Bucket" and k.startswith("Curated"))  # fmt: skip
    for key in [k for k, r in document["Resources"].items() if f'"{bucket}"' in json.dumps(r)]:
        del document["Resources"][key]
    del document["Resources"][bucket]
    for output in [k for k, o in document["Outputs"].items() if f'"{bucket}"' in json.dumps(o)]:
        del document["Outputs"][output]
    templates = {**deployed.deployment.templates, name: json.dumps(document)}
    with pytest.raises(ConflictError, match=f"would lose data: remove {bucket}"):
        steps.deploy(replace(deployed.deployment, templates=templates), FIRST, deployed.tools)
    deployed.cloud.client("s3").head_bucket(Bucket=f"{PREFIX}-curated-000000000000-us-east-1")


def test_failed_first_deployment__names_the_reason_and_can_be_repeated(world: World) -> None:
    queue = {"Type": "AWS::SQS::Queue", "Properties": {"QueueName": "pixsift-half"}}
    sound = json.dumps({"Resources": {"Queue": queue}})
    broken = json.dumps({"Resources": {
        "Queue": queue, "Broken": {"Type": "AWS::EC2::FlowLog", "Properties": {}},
    }})  # fmt: skip
    half = replace(world.deployment, protected=False)
    run = steps._Run(
        replace(half, templates={"half-Events": broken}), FIRST, world.tools, allow_loss=False
    )
    with pytest.raises(SettingError, match=r"stack half-Events.*FlowLog"):
        run.bring("half-Events", {})
    again = steps._Run(
        replace(half, templates={"half-Events": sound}), FIRST, world.tools, allow_loss=False
    )
    again.bring("half-Events", {})
    assert again.done == {"half-Events": "created"}


def test_preflight__finds_what_a_deleted_stack_left(world: World) -> None:
    other = replace(
        world.deployment,
        templates={"other-Events": "{}"},
        own_buckets=("other-raw-{account}-{region}",),
    )
    steps.preflight(other, world.tools)
    world.cloud.client("s3").create_bucket(Bucket="other-raw-000000000000-us-east-1")
    with pytest.raises(ConflictError, match=r"other-raw-000000000000-us-east-1 exists already"):
        steps.preflight(other, world.tools)


def test_preflight__of_a_given_bucket_vpc_and_account(world: World) -> None:
    s3, ec2 = world.cloud.client("s3"), world.cloud.client("ec2")
    s3.create_bucket(Bucket="fleet-images")
    given = replace(world.deployment, raw_bucket="fleet-images", own_buckets=())
    with pytest.raises(SettingError, match=r"fleet-images does not send its events to EventBridge"):
        steps.preflight(given, world.tools)
    s3.put_bucket_notification_configuration(
        Bucket="fleet-images", NotificationConfiguration={"EventBridgeConfiguration": {}}
    )
    steps.preflight(given, world.tools)
    with pytest.raises(SettingError, match=r"fleet-nothing does not exist"):
        steps.preflight(replace(given, raw_bucket="fleet-nothing"), world.tools)
    vpc = ec2.create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
    one, same = (
        ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.9.{i}.0/24", AvailabilityZone="us-east-1a")[
            "Subnet"]["SubnetId"]
        for i in range(2)
    )  # fmt: skip
    two = ec2.create_subnet(VpcId=vpc, CidrBlock="10.9.9.0/24", AvailabilityZone="us-east-1b")[
        "Subnet"]["SubnetId"]  # fmt: skip
    own = replace(world.deployment, vpc_id=vpc, own_buckets=())
    steps.preflight(replace(own, subnet_ids=(one, two)), world.tools)
    with pytest.raises(SettingError, match=r"all in us-east-1a"):
        steps.preflight(replace(own, subnet_ids=(one, same)), world.tools)
    with pytest.raises(SettingError, match=r"there is no subnet-0bad"):
        steps.preflight(replace(own, subnet_ids=(one, "subnet-0bad")), world.tools)
    with pytest.raises(SettingError, match=r"of account 000000000000"):
        steps.preflight(replace(own, account="111122223333"), world.tools)
