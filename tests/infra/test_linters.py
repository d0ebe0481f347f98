"""parliament over every policy, cfn-lint over every template: nothing is left open.

cdk-nag and CDK's own validation run while a stage is synthesized.
"""

import json
import sys
import types
import warnings
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from infra.conftest import Template, synthesize
from pixsift_infra import policies
from pixsift_infra.policies import Places
from pixsift_infra.stage import Stage, read_stage

ACCOUNT = "111122223333"
_ARNS = {
    "AWS::IAM::Role": f"arn:aws:iam::{ACCOUNT}:role/one",
    "AWS::Logs::LogGroup": f"arn:aws:logs:us-east-1:{ACCOUNT}:log-group:one:log-stream:two",
    "AWS::ECS::Cluster": f"arn:aws:ecs:us-east-1:{ACCOUNT}:cluster/one",
    "AWS::ECS::TaskDefinition": f"arn:aws:ecs:us-east-1:{ACCOUNT}:task-definition/one:1",
    "AWS::S3::Bucket": "arn:aws:s3:::one",
    "AWS::SQS::Queue": f"arn:aws:sqs:us-east-1:{ACCOUNT}:one",
    "AWS::SNS::Topic": f"arn:aws:sns:us-east-1:{ACCOUNT}:one",
}
_VALUES = {
    "AWS::AccountId": ACCOUNT, "AWS::Partition": "aws", "AWS::Region": "us-east-1",
    "DatabaseSecretArn": f"arn:aws:secretsmanager:us-east-1:{ACCOUNT}:secret:one-AbCdEf",
}  # fmt: skip


def parliament() -> Any:
    """The package: it asks for pkg_resources, which setuptools has no more, and forgets files."""
    if "pkg_resources" not in sys.modules:
        stand_in = types.ModuleType("pkg_resources")
        stand_in.resource_filename = lambda package, name: str(files(package) / name)  # type: ignore[attr-defined]
        sys.modules["pkg_resources"] = stand_in
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        import parliament as package

        return package


def findings(statements: list[dict[str, Any]]) -> list[str]:
    """What parliament says of a policy."""
    policy = json.dumps({"Version": "2012-10-17", "Statement": statements})
    return [str(each) for each in parliament().analyze_policy_string(policy).findings]


def resolved(value: Any, template: Template) -> Any:
    """The value with plausible texts for CloudFormation's functions."""
    if isinstance(value, list):
        return [resolved(each, template) for each in value]
    if not isinstance(value, dict):
        return value
    if "Fn::Join" in value:
        separator, parts = value["Fn::Join"]
        return separator.join(resolved(parts, template))
    if "Fn::GetAtt" in value:
        return _ARNS[template["Resources"][value["Fn::GetAtt"][0]]["Type"]]
    if "Ref" in value:
        name = value["Ref"]
        kind = template["Resources"].get(name, {}).get("Type")
        return _ARNS[kind] if kind else _VALUES.get(name, "one")
    return {key: resolved(each, template) for key, each in value.items()}


def identity_policies(stacks: dict[str, Template]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Statements of every inline policy of every role."""
    for stack, template in stacks.items():
        for name, resource in template["Resources"].items():
            for policy in resource["Properties"].get("Policies", []):
                statements = resolved(policy["PolicyDocument"]["Statement"], template)
                yield f"{stack}.{name}", statements


def test_parliament__finds_nothing_in_the_synthesized_roles(stacks: dict[str, Template]) -> None:
    seen = dict(identity_policies(stacks))
    assert {"Compute.ConsumerRole", "Compute.ExecutionRole", "Compute.AuditStarter",
            "Network.FlowsRole"} <= set(seen)  # fmt: skip
    open_ = {name: found for name, statements in seen.items() if (found := findings(statements))}
    assert open_ == {}


def test_parliament__finds_nothing_in_the_policies_with_a_customer_key() -> None:
    queue = f"arn:aws:sqs:us-east-1:{ACCOUNT}:one"
    places = Places(
        raw="arn:aws:s3:::raw", curated="arn:aws:s3:::curated", derived="arn:aws:s3:::derived",
        ingest=queue, ingest_dlq=queue, requests=queue, requests_dlq=queue,
        event_bus=f"arn:aws:events:us-east-1:{ACCOUNT}:event-bus/default",
        database_secret=_VALUES["DatabaseSecretArn"],
        raw_key=f"arn:aws:kms:us-east-1:{ACCOUNT}:key/11111111-1111-1111-1111-111111111111",
    )  # fmt: skip
    assert {name: findings(role(places)) for name, role in policies.ROLES.items()} == {
        name: [] for name in policies.ROLES
    }


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ({"Action": "s3:PutObjekt", "Resource": "arn:aws:s3:::b/*"}, "UNKNOWN_ACTION"),
        ({"Action": "s3:GetObject", "Resource": "arn:aws:s3:::b"}, "RESOURCE_MISMATCH"),
        ({"Action": "sqs:DeleteMessageBatch", "Resource": "*"}, "UNKNOWN_ACTION"),
    ],
)
def test_parliament__would_find_it(statement: dict[str, str], words: str) -> None:
    assert words in str(findings([{"Effect": "Allow", **statement}]))


def _stages() -> dict[str, Stage]:
    """Together they have every branch of the stacks."""
    prod = read_stage("prod")
    secret = f"arn:aws:secretsmanager:us-east-1:{ACCOUNT}:secret:one-AbCdEf"
    other = Stage.model_validate({
        "name": "other", "events": {"spaces": ["main", "dino"]},
        "network": {"egress": "endpoints"},
        "database": {"kind": "given", "secret_arn": secret, "security_group_id": "sg-0123abcd"},
        "compute": {"server": True, "spot": False, "server_names": ["pixsift.example.org"]},
    })  # fmt: skip
    imported = Stage.model_validate({
        "name": "imported",
        "events": {"raw_bucket": "fleet-images", "raw_account": "999988887777"},
        "network": {"vpc_id": "vpc-0123abcd", "subnet_ids": ["subnet-01", "subnet-02"]},
        "database": {"kind": "given", "secret_arn": secret},
    })  # fmt: skip
    return {stage.name: stage for stage in (prod, read_stage("dev"), other, imported)}


@pytest.mark.full
@pytest.mark.parametrize("name", ["prod", "dev", "other", "imported"])
def test_cfn_lint__finds_nothing(name: str, tmp_path: Path) -> None:
    from cfnlint.api import lint_file

    made = synthesize(_stages()[name], tmp_path)
    assert len(made) == 5
    open_ = {}
    for path in sorted(tmp_path.glob("*.template.json")):
        found = [f"{match.rule.id} {match.path}: {match.message}" for match in lint_file(path)]
        if found:
            open_[path.name] = found
    assert open_ == {}
    said = {name: findings(statements) for name, statements in identity_policies(made)}
    assert set(map(tuple, said.values())) == {()}, said


@pytest.mark.full
def test_cfn_lint__would_find_it(tmp_path: Path) -> None:
    from cfnlint.api import lint_file

    path = tmp_path / "bad.json"
    bucket = {"Type": "AWS::S3::Bucket", "Properties": {"BucketNam": "x"}}
    path.write_text(json.dumps({"Resources": {"Raw": bucket}}))
    assert any(match.rule.id == "E3002" for match in lint_file(path))
