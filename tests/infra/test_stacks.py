"""What the synthesized stacks of a production stage promise; cdk-nag passed over them already."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.conftest import Template, synthesize
from pixsift import config
from pixsift.telemetry import METRICS
from pixsift_infra import policies
from pixsift_infra.observability import alarms
from pixsift_infra.stage import read_stage

ROOT = Path(__file__).resolve().parents[2]


def resources(template: Template, kind: str) -> dict[str, Any]:
    return {n: r["Properties"] for n, r in template["Resources"].items() if r["Type"] == kind}


def everything(stacks: dict[str, Template]) -> Iterator[tuple[str, dict[str, Any]]]:
    for template in stacks.values():
        yield from template["Resources"].items()


def statements(stacks: dict[str, Template]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every statement of an identity policy."""
    for name, resource in everything(stacks):
        if resource["Type"] == "AWS::IAM::Role":
            for policy in resource["Properties"].get("Policies", []):
                for statement in policy["PolicyDocument"]["Statement"]:
                    yield name, statement


def test_stateful_resources__keep_their_logical_ids(stacks: dict[str, Template]) -> None:
    """Another id is another resource: the old one, with its data, would be left behind."""
    kinds = ("AWS::S3::Bucket", "AWS::SQS::Queue", "AWS::RDS::DBInstance", "AWS::RDS::DBCluster")
    found = {name for name, r in everything(stacks) if r["Type"] in kinds}
    assert found == {
        "CuratedBucket90F6C1E7",
        "DerivedBucket8588D11C",
        "IngestDlqF5C25799",
        "IngestQueue95F6DB49",
        "Ledger",
        "RawBucket672A0DBB",
        "SnapshotRequestsDlq12C8C67F",
        "SnapshotRequestsQueueC23479D4",
    }


def test_roles__have_no_wildcards_but_in_object_keys(stacks: dict[str, Template]) -> None:
    for name, statement in statements(stacks):
        actions = statement["Action"]
        for action in [actions] if isinstance(actions, str) else actions:
            assert "*" not in action, (name, statement)
        text = json.dumps(statement["Resource"])
        if statement.get("Sid") == "Login":
            assert statement["Action"] == ["ecr:GetAuthorizationToken"]  # knows no resources
        else:
            assert not re.search(r"\"\*\"|:\*", text), (name, statement)


def test_roles__one_per_process_trusted_for_this_account_only(stacks: dict[str, Template]) -> None:
    roles = resources(stacks["Compute"], "AWS::IAM::Role")
    tasks = resources(stacks["Compute"], "AWS::ECS::TaskDefinition")
    used = [json.dumps(task["TaskRoleArn"]) for task in tasks.values()]
    assert len(used) == len(set(used)) >= 6
    for name, role in roles.items():
        (trust,) = role["AssumeRolePolicyDocument"]["Statement"]
        if name != "InstanceRole":  # EC2 gives no source
            assert trust["Condition"]["StringEquals"]["aws:SourceAccount"] == {
                "Ref": "AWS::AccountId"
            }


def test_tasks__run_read_only_without_rights_and_are_looked_after(
    stacks: dict[str, Template],
) -> None:
    for name, task in resources(stacks["Compute"], "AWS::ECS::TaskDefinition").items():
        (container,) = task["ContainerDefinitions"]
        assert container["ReadonlyRootFilesystem"] is True, name
        assert container["User"] == "10001:10001"
        assert container["LinuxParameters"]["Capabilities"] == {"Drop": ["ALL"]}
        assert container["LinuxParameters"]["InitProcessEnabled"] is True
        assert "Privileged" not in container
        assert container["LogConfiguration"]["Options"]["awslogs-group"]
        if container["Command"][0] != "pixsift":
            assert container["HealthCheck"]["Command"][0] == "CMD", name
            assert container["StopTimeout"] >= 30


def test_health_check__of_the_services_is_the_images(stacks: dict[str, Template]) -> None:
    tasks = resources(stacks["Compute"], "AWS::ECS::TaskDefinition")
    for task, dockerfile in (("ConsumerTask", "gpu-consumer"), ("CuratorTask", "services")):
        text = (ROOT / f"Dockerfile.{dockerfile}").read_text()
        found = re.search(r"HEALTHCHECK.*?CMD (\[.*?\])", text, re.S)
        assert found
        check = tasks[task]["ContainerDefinitions"][0]["HealthCheck"]["Command"]
        assert check == ["CMD", *json.loads(found[1])]


@pytest.mark.parametrize(
    ("task", "settings"),
    [("ConsumerTask", config.ConsumerSettings), ("CuratorTask", config.CuratorSettings)],
)
def test_environment__names_settings_of_the_process_both_ways(
    stacks: dict[str, Template], task: str, settings: type[config.ConsumerSettings]
) -> None:
    definition = resources(stacks["Compute"], "AWS::ECS::TaskDefinition")[task]
    given = {v["Name"] for v in definition["ContainerDefinitions"][0]["Environment"]}
    known = {f"PIXSIFT_{name.upper()}" for name in settings.model_fields}
    assert {name for name in given if name.startswith("PIXSIFT_")} <= known
    needed = {"DATABASE_URL", "DATABASE_SECRET", "STAGE", "HEALTH_FILE", "CURATED_BUCKET",
              "DERIVED_BUCKET", "SNAPSHOT_QUEUE"}  # fmt: skip
    if task == "ConsumerTask":
        needed |= {"INGEST_QUEUE", "INGEST_DLQ", "DECODE_WORKERS", "SEARCH_DEVICE"}
    assert {f"PIXSIFT_{name}" for name in needed} <= given
    url = next(v["Value"] for v in definition["ContainerDefinitions"][0]["Environment"]
               if v["Name"] == "PIXSIFT_DATABASE_URL")  # fmt: skip
    assert "sslmode=verify-full" in json.dumps(url) and "password" not in json.dumps(url).lower()


def test_images__come_by_digest(stacks: dict[str, Template]) -> None:
    for name in ("GpuImage", "ServicesImage"):
        pattern = stacks["Compute"]["Parameters"][name]["AllowedPattern"]
        assert re.fullmatch(pattern, f"x/y@sha256:{'a' * 64}")
        assert not re.fullmatch(pattern, "x/y:latest")


def test_parameters__are_outputs_of_earlier_stacks(stacks: dict[str, Template]) -> None:
    known = {"GpuImage", "ServicesImage"}
    for stack in ("Events", "Network", "Database", "Compute", "Observability"):
        template = stacks[stack]
        needs = {n for n, p in template.get("Parameters", {}).items() if "Default" not in p}
        assert needs <= known, stack
        known |= set(template.get("Outputs", {}))


def test_database__is_private_encrypted_tls_only_and_kept(stacks: dict[str, Template]) -> None:
    template = stacks["Database"]
    (ledger,) = resources(template, "AWS::RDS::DBInstance").values()
    assert ledger["StorageEncrypted"] is True and ledger["PubliclyAccessible"] is False
    assert ledger["DeletionProtection"] is True and ledger["ManageMasterUserPassword"] is True
    assert template["Resources"]["Ledger"]["DeletionPolicy"] == "Snapshot"
    (parameters,) = resources(template, "AWS::RDS::DBParameterGroup").values()
    assert parameters["Parameters"]["rds.force_ssl"] == "1"
    (group,) = resources(template, "AWS::EC2::SecurityGroup").values()
    (rule,) = group["SecurityGroupIngress"]
    assert rule["SourceSecurityGroupId"] == {"Ref": "TaskSecurityGroupId"}


def test_network__lets_nobody_in(stacks: dict[str, Template]) -> None:
    for group in resources(stacks["Network"], "AWS::EC2::SecurityGroup").values():
        for rule in group.get("SecurityGroupIngress", []):
            assert rule.get("CidrIp") != "0.0.0.0/0"
    for subnet in resources(stacks["Network"], "AWS::EC2::Subnet").values():
        assert subnet["MapPublicIpOnLaunch"] is False


def test_alarms__speak_of_metrics_that_exist_and_tell_somebody(stacks: dict[str, Template]) -> None:
    stage = read_stage("prod")
    ours = {alarm.metric for alarm in alarms(stage) if alarm.namespace == "pixsift"}
    assert ours <= set(METRICS)
    assert {n for n, m in METRICS.items() if "alarm on any" in m.tells} <= ours
    made = resources(stacks["Observability"], "AWS::CloudWatch::Alarm")
    assert len(made) == len(alarms(stage))
    assert all(alarm["AlarmActions"] for alarm in made.values())
    (dashboard,) = resources(stacks["Observability"], "AWS::CloudWatch::Dashboard").values()
    for widget in json.loads(dashboard["DashboardBody"])["widgets"]:
        for namespace, name, *_ in widget["properties"]["metrics"]:
            assert namespace != "pixsift" or name in METRICS


def test_logs__do_not_stay_for_ever(stacks: dict[str, Template]) -> None:
    groups = [r for _, r in everything(stacks) if r["Type"] == "AWS::Logs::LogGroup"]
    assert groups and all(g["Properties"]["RetentionInDays"] for g in groups)


def test_buckets__have_names_of_the_account_and_tidy_themselves(
    stacks: dict[str, Template],
) -> None:
    buckets = resources(stacks["Events"], "AWS::S3::Bucket")
    for bucket in buckets.values():
        name = json.dumps(bucket["BucketName"])
        assert "AWS::AccountId" in name and "AWS::Region" in name
        rules = bucket["LifecycleConfiguration"]["Rules"]
        assert rules[0]["AbortIncompleteMultipartUpload"]
        if "VersioningConfiguration" in bucket:
            assert rules[0]["NoncurrentVersionExpiration"] and rules[0]["ExpiredObjectDeleteMarker"]
        else:
            assert rules[1]["ExpirationInDays"] == 365
    policies_ = {r.get("DeletionPolicy") for _, r in everything(stacks)
                 if r["Type"] == "AWS::S3::Bucket"}  # fmt: skip
    # Kept with its data, but not where the first creation failed, so that one can try again.
    assert policies_ == {"RetainExceptOnCreate"}


def test_statements__are_those_of_the_policies(stacks: dict[str, Template]) -> None:
    sids = {name: {s["Sid"] for n, s in statements(stacks) if n == f"{name}Role"}
            for name in ("Consumer", "Curator", "Migrate", "Reconcile", "Audit")}  # fmt: skip
    places = policies.Places(*[f"arn:{n}" for n in "rcdiqjebs"])
    for name, found in sids.items():
        assert found == {s["Sid"] for s in policies.ROLES[name.lower()](places)}


def test_spaces__each_get_a_queue_and_consumers_behind_one_encrypted_topic(
    tmp_path: Path,
) -> None:
    stage = read_stage("prod")
    events = stage.events.model_copy(update={"spaces": ("main", "dino")})
    made = synthesize(stage.model_copy(update={"events": events}), tmp_path)
    queues = resources(made["Events"], "AWS::SQS::Queue")
    assert sum(name.startswith("Ingest2") for name in queues) == 2  # with its DLQ
    (topic,) = resources(made["Events"], "AWS::SNS::Topic").values()
    assert topic["KmsMasterKeyId"]
    subscriptions = resources(made["Events"], "AWS::SNS::Subscription").values()
    assert len(subscriptions) == 2
    assert all(s["RawMessageDelivery"] and s["RedrivePolicy"] for s in subscriptions)
    (raw,) = (b for b in resources(made["Events"], "AWS::S3::Bucket").values()
              if "NotificationConfiguration" in b)  # fmt: skip
    assert len(raw["NotificationConfiguration"]["TopicConfigurations"]) == 4
    services = resources(made["Compute"], "AWS::ECS::Service")
    assert {"consumer", "consumer-dino", "curator"} == {s["ServiceName"] for s in services.values()}
    for definition in resources(made["Compute"], "AWS::ECS::TaskDefinition").values():
        (container,) = definition["ContainerDefinitions"]
        if container["Command"] == ["pixsift-consumer"]:
            assert {"Name": "PIXSIFT_OWN_QUEUE", "Value": "true"} in container["Environment"]


def test_imported_bucket__is_left_as_it_is(tmp_path: Path) -> None:
    """Its notifications may belong to others: EventBridge gets events in addition."""
    stage = read_stage("prod")
    events = stage.events.model_copy(
        update={
            "raw_bucket": "fleet-images", "raw_account": "111122223333",
            "raw_key_arn": "arn:aws:kms:us-east-1:111122223333:key/ab-12",
        }
    )  # fmt: skip
    made = synthesize(stage.model_copy(update={"events": events}), tmp_path)
    buckets = resources(made["Events"], "AWS::S3::Bucket")
    assert len(buckets) == 2
    assert not any("NotificationConfiguration" in bucket for bucket in buckets.values())
    rules = resources(made["Events"], "AWS::Events::Rule")
    (pattern,) = (r["EventPattern"] for r in rules.values() if "EventPattern" in r)
    assert pattern["account"] == ["111122223333"]
    assert "Object Restore Completed" in pattern["detail-type"]
    assert resources(made["Events"], "AWS::Events::EventBusPolicy")
    decrypt = [n for n, s in statements(made) if s.get("Sid") == "Decrypt"]
    assert {"ConsumerRole", "CuratorRole"} <= set(decrypt)
