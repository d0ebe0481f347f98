"""What follows from a stage, its stacks and its images, before anything speaks to AWS."""

import json

import pytest

from pixsift.core.deployment import (
    Deployment,
    Images,
    StackChange,
    after_roll_back,
    check_image,
    check_quota,
    check_registry,
    check_subnets,
    compact,
    gpu_quota,
    losses,
    parameters_for,
    release_parameters,
    state_of,
)
from pixsift.errors import SettingError

DIGEST = "sha256:" + "a" * 64
OURS = f"123456789012.dkr.ecr.us-east-1.amazonaws.com/pixsift-prod/services@{DIGEST}"


def stage(**given: object) -> Deployment:
    return Deployment(stage="prod", prefix="pixsift-prod", templates={}, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("status", "state"),
    [
        (None, "absent"),
        ("DELETE_COMPLETE", "absent"),
        ("REVIEW_IN_PROGRESS", "half_made"),  # a change set that was never executed
        ("ROLLBACK_COMPLETE", "half_made"),  # the first deployment failed: it can only be deleted
        ("ROLLBACK_FAILED", "half_made"),
        ("CREATE_FAILED", "half_made"),
        ("CREATE_IN_PROGRESS", "busy"),
        ("UPDATE_COMPLETE_CLEANUP_IN_PROGRESS", "busy"),
        ("UPDATE_ROLLBACK_FAILED", "stuck"),
        ("DELETE_FAILED", "stuck"),
        ("CREATE_COMPLETE", "ready"),
        ("UPDATE_ROLLBACK_COMPLETE", "ready"),
        ("IMPORT_COMPLETE", "ready"),
    ],
)
def test_state_of__what_can_be_done(status: str | None, state: str) -> None:
    assert state_of(status) == state


def test_compact__drops_what_only_cdk_reads() -> None:
    text = json.dumps({"Resources": {"A": {"Type": "T", "Metadata": {"aws:cdk:path": "x"}}}})
    assert compact(text) == '{"Resources":{"A":{"Type":"T"}}}'


def test_parameters_for__chosen_then_outputs_then_defaults() -> None:
    template = json.dumps({"Parameters": {
        "GpuImage": {}, "SubnetIds": {}, "Running": {"Default": "yes"}, "Host": {"Default": ""},
    }})  # fmt: skip
    known = {"SubnetIds": "a,b", "GpuImage": "of another stack", "Host": "db", "Unasked": "x"}
    found = parameters_for("s", template, known, {"GpuImage": "ours"})
    assert found == {"GpuImage": "ours", "SubnetIds": "a,b", "Host": "db"}
    with pytest.raises(SettingError, match="parameter SubnetIds of stack s"):
        parameters_for("s", template, {}, {"GpuImage": "ours"})


@pytest.mark.parametrize(
    ("change", "is_loss"),
    [
        (StackChange("Remove", "Raw", "AWS::S3::Bucket"), True),
        (StackChange("Modify", "Ledger", "AWS::RDS::DBInstance", "True"), True),
        (StackChange("Modify", "Ledger", "AWS::RDS::DBInstance", "False"), False),
        (StackChange("Modify", "Raw", "AWS::S3::Bucket", "Conditional"), False),
        (StackChange("Add", "Raw", "AWS::S3::Bucket"), False),
        (StackChange("Modify", "Task", "AWS::ECS::TaskDefinition", "True"), False),
    ],
)
def test_losses__of_what_holds_data_only(change: StackChange, is_loss: bool) -> None:
    assert bool(losses([change])) is is_loss


@pytest.mark.parametrize("image", ["", "x/y:latest", f"x y@{DIGEST}", f"x@{DIGEST}0", "x@sha256:a"])
def test_check_image__wants_a_digest(image: str) -> None:
    with pytest.raises(SettingError, match="the setting"):
        check_image(image, "the setting")
    assert check_image(OURS, "the setting") == OURS


def test_check_registry__only_where_the_tasks_may_pull_from() -> None:
    where = ("123456789012", "us-east-1")
    assert check_registry(OURS, stage(), *where) == "pixsift-prod/services"
    for image in (
        OURS.replace("123456789012", "999999999999"),
        OURS.replace("us-east-1", "eu-west-1"),
        OURS.replace("pixsift-prod/", "pixsift-dev/"),
    ):
        with pytest.raises(SettingError, match=r"pull from repositories pixsift-prod/\*"):
            check_registry(image, stage(), *where)
    public = f"ghcr.io/team/pixsift@{DIGEST}"
    assert check_registry(public, stage(), *where) is None
    with pytest.raises(SettingError, match=r"network\.egress = 'endpoints'"):
        check_registry(public, stage(closed_network=True), *where)


def test_check_subnets__exist_in_the_vpc_in_two_zones() -> None:
    wanted = stage(vpc_id="vpc-1", subnet_ids=("subnet-1", "subnet-2"))
    check_subnets(wanted, [("subnet-1", "vpc-1", "a"), ("subnet-2", "vpc-1", "b")])
    for found, words in (
        ([("subnet-1", "vpc-1", "a")], "there is no subnet-2"),
        ([("subnet-1", "vpc-1", "a"), ("subnet-2", "vpc-2", "b")], "subnet-2 is not in vpc-1"),
        ([("subnet-1", "vpc-1", "a"), ("subnet-2", "vpc-1", "a")], "all in a"),
    ):
        with pytest.raises(SettingError, match=words):
            check_subnets(wanted, found)


def test_check_quota__no_gpu_at_all_stops_it_and_few_are_a_note() -> None:
    gpus = stage(gpu_instances=("g6.2xlarge",), most_consumers=4)
    assert gpu_quota(gpus) == "L-3819A6DF"
    assert gpu_quota(stage(gpu_instances=("g6.2xlarge",), spot=False)) == "L-DB2E81BA"
    assert gpu_quota(stage()) is None and check_quota(stage(), None) is None
    with pytest.raises(SettingError, match=r"may run 4 vCPUs .* ask Service Quotas .*L-3819A6DF"):
        check_quota(gpus, 4.0)
    assert "room for 2 of 4" in (check_quota(gpus, 23.0) or "")
    assert "not checked" in (check_quota(gpus, None) or "")
    assert check_quota(gpus, 32.0) is None


def test_release__remembers_what_ran_and_a_roll_back_swaps() -> None:
    first, second = Images("gpu-1", "services-1"), Images("gpu-2", "services-2")
    one = release_parameters({}, first)
    assert one["Running"] == "yes" and one["PreviousGpuImage"] == ""
    with pytest.raises(SettingError, match="no release before"):
        after_roll_back(one, "stack")
    two = release_parameters(one, second)
    assert two["MigrateImage"] == "services-2" and two["PreviousServicesImage"] == "services-1"
    # The same release again does not forget the one before.
    assert release_parameters(two, second) == two
    back = {**two, **after_roll_back(two, "stack")}
    assert (back["GpuImage"], back["PreviousGpuImage"]) == ("gpu-1", "gpu-2")
    forward = after_roll_back(back, "stack")
    assert forward["GpuImage"] == "gpu-2" and forward["ServicesImage"] == "services-2"


def test_release__that_was_cut_short_before_any_service_was_there_has_nothing_before() -> None:
    half = {**release_parameters({}, Images("gpu-1", "services-1")), "Running": "no"}
    assert release_parameters(half, Images("gpu-2", "services-2"))["PreviousGpuImage"] == ""
