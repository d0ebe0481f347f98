"""Options of ``pixsift deploy``, and images: built by an engine, found again by commit."""

import json
import subprocess
import sys
from pathlib import Path

import boto3
import pytest
from moto import mock_aws

from pixsift.adapters.aws.account import Account
from pixsift.adapters.aws.container_images import EcrImages, Engine, checkout_version
from pixsift.core.deployment import Deployment
from pixsift.errors import RequestError, SettingError
from pixsift.operations import build_images
from pixsift_cli import deploy as command
from pixsift_cli import stage as stages
from pixsift_cli.wiring import deploy_tools
from pixsift_infra.stage import read_stage

DIGEST = "sha256:" + "a" * 64
MANIFEST = json.dumps({
    "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
    "config": {"digest": DIGEST}, "layers": [],
})  # fmt: skip


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for an engine: it writes down what it is asked, and fails where FAIL says."""
    script, calls = tmp_path / "bin" / "podman", tmp_path / "calls"
    script.parent.mkdir()
    script.write_text(
        f"#!{sys.executable}\nimport json, os, sys\n"
        "given = sys.stdin.read() if 'login' in sys.argv else ''\n"
        f"open({str(calls)!r}, 'a').write(json.dumps([*sys.argv[1:], given]) + '\\n')\n"
        "print('a line of the engine')\nsys.exit(sys.argv[1] == os.environ.get('FAIL'))\n"
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(script.parent))
    return calls


def test_engine__builds_logs_in_and_pushes(
    engine: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    found = Engine.find()
    found.build("Dockerfile.services", "host/repo:tag", tmp_path, {"MODEL": "x"})
    found.push("host/repo:tag", "secret")
    build, login, push = (json.loads(line) for line in engine.read_text().splitlines())
    assert build == [
        "build", "--platform=linux/amd64", "-f", f"{tmp_path}/Dockerfile.services",
        "-t", "host/repo:tag", "--build-arg=MODEL=x", str(tmp_path), "",
    ]  # fmt: skip
    assert login == ["login", "--username=AWS", "--password-stdin", "host", "secret"]
    assert push[:2] == ["push", "host/repo:tag"]
    out, err = capfd.readouterr()
    assert out == "" and "a line of the engine" in err  # --json has standard output for itself


def test_engine__that_fails_or_is_absent_is_one_line(
    engine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAIL", "push")
    with pytest.raises(SettingError, match=r"'podman push host/repo:tag' ended with status 1"):
        Engine.find("podman").push("host/repo:tag", "secret")
    with pytest.raises(SettingError, match=r"docker not found"):
        Engine.find("docker")


@mock_aws
def test_ecr__makes_a_repository_once_and_finds_digests(aws: None) -> None:
    images = EcrImages("us-east-1")
    uri = images.ensure("pixsift-x/services")
    assert images.ensure("pixsift-x/services") == uri
    ecr = boto3.client("ecr", region_name="us-east-1")
    (made,) = ecr.describe_repositories()["repositories"]
    assert made["imageTagMutability"] == "IMMUTABLE"
    assert made["imageScanningConfiguration"]["scanOnPush"] is True
    policy = ecr.get_lifecycle_policy(repositoryName="pixsift-x/services")["lifecyclePolicyText"]
    assert json.loads(policy)["rules"][0]["selection"]["countNumber"] == 20
    assert images.digest("pixsift-x/services", "tag") is None
    assert images.digest("pixsift-x/nothing", "tag") is None
    ecr.put_image(repositoryName="pixsift-x/services", imageManifest=MANIFEST, imageTag="tag")
    digest = images.digest("pixsift-x/services", "tag")
    assert digest and digest.startswith("sha256:")
    assert images.digest("pixsift-x/services", digest) == digest
    assert images.password()


@mock_aws
def test_quota__is_read_or_unknown(aws: None) -> None:
    account = Account("us-east-1")
    assert account.identity() == ("123456789012", "us-east-1")
    assert account.quota("L-NOTHING") is None


@mock_aws
def test_build__takes_an_image_of_the_same_commit_without_building(
    aws: None, engine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools = deploy_tools("us-east-1", lambda line: None)
    wanted = Deployment(stage="x", prefix="pixsift-x", templates={})
    ecr = boto3.client("ecr", region_name="us-east-1")
    tag = build_images.tag_of("c" * 40, {})
    assert tag != build_images.tag_of("c" * 40, {"MODEL": "x"}) and tag.startswith("c" * 12)
    for name in ("gpu-consumer", "services"):
        tools.images.ensure(f"pixsift-x/{name}")
        ecr.put_image(repositoryName=f"pixsift-x/{name}", imageManifest=MANIFEST, imageTag=tag)
    monkeypatch.setattr(build_images, "checkout_version", lambda folder: "c" * 40)
    images = build_images.build_images(wanted, Path(), tools, arguments={})
    assert images.gpu.startswith("123456789012.dkr.ecr.us-east-1.amazonaws.com/pixsift-x/gpu-")
    assert not engine.exists()


def test_checkout_version__of_a_clean_checkout_only(tmp_path: Path) -> None:
    assert checkout_version(tmp_path) is None
    git = ["git", "-C", str(tmp_path), "-c", "user.name=t", "-c", "user.email=t@example.org"]
    for arguments in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "x"]):
        subprocess.run([*git, *arguments], check=True)
    version = checkout_version(tmp_path)
    assert version and len(version) == 40
    (tmp_path / "new").touch()
    assert checkout_version(tmp_path) is None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"plan": True, "rollback": True}, "exclude each other"),
        ({"gpu_image": f"x@{DIGEST}"}, "belong together"),
        ({"gpu_image": "x:latest", "services_image": f"x@{DIGEST}"}, "--gpu-image 'x:latest'"),
        ({"build_arg": ["MODEL"]}, "'MODEL' is not NAME=VALUE"),
        ({"stage": "production"}, "there is no stage 'production'"),
        ({"stage": "local"}, "the stage local is for the emulator"),
    ],
)
def test_deploy__names_the_wrong_option_before_it_asks_aws(
    options: dict[str, object], words: str
) -> None:
    given = {"plan": False, "rollback": False, "stage": "prod", "gpu_image": "",
             "services_image": "", "build_arg": None, **options}  # fmt: skip
    with pytest.raises((RequestError, SettingError), match=words):
        command.deploy(**given)  # type: ignore[arg-type]


def test_stage__needs_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pixsift.extras.find_spec", lambda name: None)
    with pytest.raises(SettingError, match=r"needs aws_cdk.*pixsift_infra") as told:
        stages.read("prod")
    assert told.value.remedy and told.value.remedy.arguments == {"extra": "infra"}


def test_authorities__must_be_there_where_the_database_is_ours(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"certs/README\.md"):
        stages.check_authorities(read_stage("prod"), tmp_path)
    (tmp_path / "certs").mkdir()
    (tmp_path / stages.RDS_AUTHORITIES).touch()
    stages.check_authorities(read_stage("prod"), tmp_path)


def test_prices__are_those_of_the_stage() -> None:
    prod, dev = stages.prices(read_stage("prod")), stages.prices(read_stage("dev"))
    assert prod["nat_month"] == 33.0 and dev["nat_month"] == 4.0
    assert prod["database_month"] == 2 * dev["database_month"]  # a standby in a second zone


def test_described__knows_the_buckets_that_the_stack_will_make() -> None:
    found = stages.described(read_stage("prod"), {"pixsift-prod-Compute": "{}"})
    assert "pixsift-prod-raw-{account}-{region}" in found.own_buckets
    assert found.stack("Compute") == "pixsift-prod-Compute"
    assert found.gpu_instances and not found.public_tasks
