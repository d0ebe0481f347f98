"""What the synthesized events stack promises; cdk-nag's findings fail the synthesis itself."""

import json
from pathlib import Path
from typing import Any

import pytest

from pixsift.adapters.local.events_stack import EventsStack, events_template
from pixsift.config import BucketSettings, QueueSettings
from pixsift.messages import SnapshotRequest
from pixsift_infra.stage import read_stage, with_shadow
from pixsift_infra.synth import build


@pytest.fixture(scope="session")
def template(synthesized: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(
        (synthesized / "PixsiftEvents.template.json").read_text("utf-8")
    )
    return loaded


def test_committed_template__is_what_cdk_synthesizes(template: dict[str, Any]) -> None:
    assert json.loads(events_template()) == template, "run make synth and commit the result"


def test_committed_shadow_template__is_what_cdk_synthesizes(tmp_path: Path) -> None:
    build(with_shadow(read_stage("local")), tmp_path).synth()
    made = json.loads((tmp_path / "PixsiftEvents.template.json").read_text("utf-8"))
    assert json.loads(events_template(shadow=True)) == made, "run make synth and commit the result"
    stack = EventsStack("x")
    queues = {
        r["Properties"]["QueueName"]["Fn::Join"][1][1] for r in made["Resources"].values()
        if r["Type"] == "AWS::SQS::Queue"
    }  # fmt: skip
    assert {stack.shadow_queue[1:], f"{stack.shadow_queue}-dlq"[1:]} <= queues


def test_template__needs_no_bootstrap_and_no_lambda(template: dict[str, Any]) -> None:
    assert "Rules" not in template
    assert {r["Type"] for r in template["Resources"].values()} == {
        "AWS::S3::Bucket", "AWS::S3::BucketPolicy", "AWS::SQS::Queue", "AWS::SQS::QueuePolicy",
        "AWS::Events::Rule",
    }  # fmt: skip


def test_raw_bucket__is_versioned_and_notifies_after_the_queue_allows_it(
    template: dict[str, Any],
) -> None:
    raw = _named(template, "AWS::S3::Bucket", "BucketName", "-raw")
    queue = _logical_id(template, "QueueName", "-ingest")
    assert raw["Properties"]["VersioningConfiguration"] == {"Status": "Enabled"}
    configurations = raw["Properties"]["NotificationConfiguration"]["QueueConfigurations"]
    assert {c["Event"] for c in configurations} == {
        "s3:ObjectCreated:*", "s3:ObjectRemoved:*", "s3:LifecycleExpiration:*",
        "s3:ObjectRestore:Completed",
    }  # fmt: skip
    assert all(c["Queue"] == {"Fn::GetAtt": [queue, "Arn"]} for c in configurations)
    policies = [template["Resources"][name] for name in raw["DependsOn"]]
    assert [p["Properties"]["Queues"] for p in policies] == [[{"Ref": queue}]]


def test_buckets__are_private_and_survive_the_stack(template: dict[str, Any]) -> None:
    buckets = [r for r in template["Resources"].values() if r["Type"] == "AWS::S3::Bucket"]
    assert len(buckets) == 3
    for bucket in buckets:
        assert all(bucket["Properties"]["PublicAccessBlockConfiguration"].values())
        assert bucket["DeletionPolicy"] == "RetainExceptOnCreate"


@pytest.mark.parametrize("suffix", ["-ingest", "-snapshot-requests"])
def test_queues__have_a_dlq_that_outlives_them(template: dict[str, Any], suffix: str) -> None:
    queue = _named(template, "AWS::SQS::Queue", "QueueName", suffix)["Properties"]
    dlq = _named(template, "AWS::SQS::Queue", "QueueName", f"{suffix}-dlq")["Properties"]
    target = {"Fn::GetAtt": [_logical_id(template, "QueueName", f"{suffix}-dlq"), "Arn"]}
    assert queue["RedrivePolicy"] == {"deadLetterTargetArn": target, "maxReceiveCount": 5}
    assert dlq["MessageRetentionPeriod"] >= 2 * queue["MessageRetentionPeriod"]


def test_queue_policies__name_source_and_account_for_every_service(
    template: dict[str, Any],
) -> None:
    allowed = [
        statement
        for resource in template["Resources"].values()
        if resource["Type"] == "AWS::SQS::QueuePolicy"
        for statement in resource["Properties"]["PolicyDocument"]["Statement"]
        if statement["Effect"] == "Allow"
    ]
    assert {s["Principal"]["Service"] for s in allowed} == {
        "s3.amazonaws.com", "events.amazonaws.com",
    }  # fmt: skip
    for statement in allowed:
        assert statement["Action"] == "sqs:SendMessage"
        assert "aws:SourceArn" in statement["Condition"]["ArnLike"]
        assert statement["Condition"]["StringEquals"] == {
            "aws:SourceAccount": {"Ref": "AWS::AccountId"}
        }


def test_schedule__sends_a_valid_request_whose_id_is_the_events(template: dict[str, Any]) -> None:
    (rule,) = (r for r in template["Resources"].values() if r["Type"] == "AWS::Events::Rule")
    (target,) = rule["Properties"]["Targets"]
    assert target["InputTransformer"]["InputPathsMap"] == {"id": "$.id"}
    text = _resolved(template, target["InputTransformer"]["InputTemplate"])
    request = SnapshotRequest.model_validate_json(text.replace("<id>", '"event-1"'))
    assert (request.request_id, request.collection) == ("event-1", "default")


def test_names__are_the_settings_defaults(template: dict[str, Any]) -> None:
    names = {
        _resolved(template, r["Properties"][key])
        for r in template["Resources"].values()
        for key in ("BucketName", "QueueName")
        if key in r.get("Properties", {})
    }
    stack, queues, buckets = EventsStack(), QueueSettings(), BucketSettings()
    assert names == {
        stack.raw_bucket, stack.derived_bucket, stack.curated_bucket, stack.ingest_queue,
        stack.ingest_dlq, stack.snapshot_queue, stack.snapshot_dlq,
    }  # fmt: skip
    assert {queues.ingest_queue, queues.ingest_dlq, queues.snapshot_queue} <= names
    assert {buckets.derived_bucket, buckets.curated_bucket} <= names


def _named(template: dict[str, Any], kind: str, key: str, suffix: str) -> dict[str, Any]:
    resource: dict[str, Any] = template["Resources"][_logical_id(template, key, suffix)]
    assert resource["Type"] == kind
    return resource


def _logical_id(template: dict[str, Any], key: str, suffix: str) -> str:
    (found,) = (
        name
        for name, resource in template["Resources"].items()
        if _resolved(template, resource.get("Properties", {}).get(key, "")) == f"pixsift{suffix}"
    )
    return str(found)


def _resolved(template: dict[str, Any], value: Any) -> str:
    """A text with its Joins carried out and parameters at their defaults."""
    if isinstance(value, str):
        return value
    if "Ref" in value:
        return str(template["Parameters"][value["Ref"]]["Default"])
    return "".join(_resolved(template, part) for part in value["Fn::Join"][1])
