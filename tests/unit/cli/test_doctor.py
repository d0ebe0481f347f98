"""``pixsift doctor``: what is well, what is wrong, and the remedy for each."""

import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import boto3
import psycopg
import pytest
from moto import mock_aws
from typer.testing import CliRunner

from pixsift.adapters.local.processes import ProcessRecord
from pixsift.operations.local.loop import LoopRecord
from pixsift_cli.main import app


@pytest.fixture
def machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database_url: str
) -> Iterator[pytest.MonkeyPatch]:
    """A machine on which everything is well, with no local loop."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1", "PIXSIFT_DATABASE_URL": database_url,
        "PIXSIFT_STATE_DIR": str(tmp_path),
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws():
        sqs, s3 = boto3.client("sqs"), boto3.client("s3")
        for queue in ("ingest", "ingest-dlq", "snapshot-requests", "snapshot-requests-dlq"):
            sqs.create_queue(QueueName=f"pixsift-{queue}")
        for bucket in ("derived", "curated"):
            s3.create_bucket(Bucket=f"pixsift-{bucket}")
        yield monkeypatch


def examine() -> tuple[int, dict[str, dict[str, Any]]]:
    """Exit status, and the findings by name."""
    result = CliRunner().invoke(app, ["doctor", "--json"])
    report = json.loads(result.stdout)
    assert report["ok"] is (result.exit_code == 0)
    return result.exit_code, {finding["name"]: finding for finding in report["findings"]}


def test_doctor__all_is_well(machine: pytest.MonkeyPatch) -> None:
    status, findings = examine()
    assert status == 0
    assert findings["ledger"]["detail"].startswith("PostgreSQL 18")
    assert findings["schema"]["state"] == "ok"
    assert findings["ingest queue"]["detail"] == "pixsift-ingest: 0 waiting, 0 in flight"


@pytest.mark.parametrize(
    ("setting", "value", "wrong", "remedy"),
    [
        ("PIXSIFT_DATABASE_URL", "", "ledger", "pixsift up"),
        ("PIXSIFT_DATABASE_URL", "postgresql://localhost:1/x", "ledger", "the server"),
        ("PIXSIFT_INGEST_QUEUE", "absent", "ingest queue", "PIXSIFT_INGEST_QUEUE"),
        ("PIXSIFT_CURATED_BUCKET", "absent", "curated bucket", "PIXSIFT_CURATED_BUCKET"),
    ],
)
def test_doctor__names_what_is_wrong_and_the_remedy(
    machine: pytest.MonkeyPatch, setting: str, value: str, wrong: str, remedy: str
) -> None:
    machine.setenv(setting, value)
    status, findings = examine()
    assert status == 1
    found = [name for name, finding in findings.items() if finding["state"] == "wrong"]
    assert found == ([wrong, "journal"] if wrong == "curated bucket" else [wrong])
    assert remedy in findings[wrong]["remedy"]


def test_doctor__an_old_schema_asks_for_migrate(
    machine: pytest.MonkeyPatch, database_url: str
) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("DELETE FROM schema_migrations WHERE version = '0001'")
    status, findings = examine()
    assert status == 1
    assert findings["schema"]["remedy"] == "run pixsift migrate"


def test_doctor__a_dead_process_of_the_loop_is_told_with_its_last_words(
    machine: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    log = tmp_path / "consumer.log"
    log.write_text("starting\nno weights here\n")
    process = {"name": "pixsift-consumer", "pid": 1, "started": "never", "log": str(log)}
    record = {"postgres": str(tmp_path / "pg"), "processes": [process], "environment": {}}
    (tmp_path / "loop.json").write_text(json.dumps(record))
    status, findings = examine()
    assert status == 1
    assert "pixsift-consumer ended: no weights here" in findings["local loop"]["detail"]


@pytest.mark.parametrize(
    ("dead", "is_postgres_running", "remedy"),
    [
        ("pixsift-curator", True, "pixsift up restarts"),
        ("localstack", True, "run pixsift down, and then pixsift up"),
        ("pixsift-curator", False, "run pixsift down, and then pixsift up"),
    ],
)
def test_doctor__of_the_loop_only_a_dead_service_can_be_started_again(
    machine: pytest.MonkeyPatch, tmp_path: Path, dead: str, is_postgres_running: bool, remedy: str
) -> None:
    machine.setattr(ProcessRecord, "is_alive", lambda process: process.name != dead)
    machine.setattr(LoopRecord, "is_postgres_running", lambda _record: is_postgres_running)
    names = ("localstack", "pixsift-consumer", "pixsift-curator")
    processes = [{"name": name, "pid": 1, "started": "", "log": ""} for name in names]
    record = {"postgres": str(tmp_path / "pg"), "processes": processes, "environment": {}}
    (tmp_path / "loop.json").write_text(json.dumps(record))
    status, findings = examine()
    assert status == 1
    assert findings["local loop"]["remedy"].startswith(remedy)


@pytest.mark.parametrize(
    ("model", "files", "detail"),
    [
        ("dinov3-typo", {}, "unknown model 'dinov3-typo'"),
        ("no/such/folder", {}, "neither a folder nor a hub repository"),
        ("facebook/dinov2-base", {}, "set PIXSIFT_MODEL_REVISION"),
        ("here", {"weights.bin": ""}, "no readable config.json"),
        ("here", {"config.json": '{"model_type": "llama"}'}, "is not a DINOv2 model"),
        ("here", {"config.json": '{"model_type": "dinov2"}'}, "has no safetensors"),
    ],
)
def test_doctor__a_model_that_no_service_could_load_is_wrong(
    machine: pytest.MonkeyPatch, tmp_path: Path, model: str, files: dict[str, str], detail: str
) -> None:
    machine.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    for name, content in files.items():
        (tmp_path / "here" / name).write_text(content)
    machine.setenv("PIXSIFT_MODEL", model)
    status, findings = examine()
    assert status == 1
    assert findings["model"]["state"] == "wrong"
    assert detail in findings["model"]["detail"]


def test_doctor__a_model_that_may_load_is_well(machine: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "dinov2"}')
    (tmp_path / "model.safetensors").touch()
    machine.setenv("PIXSIFT_MODEL", str(tmp_path))
    assert examine()[1]["model"]["state"] == "ok"
    machine.setenv("PIXSIFT_MODEL", "facebook/dinov2-base")
    machine.setenv("PIXSIFT_MODEL_REVISION", "a" * 40)
    assert examine()[1]["model"]["state"] == "ok"


def test_doctor__names_the_packages_of_the_model_that_is_set(
    machine: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    machine.setattr(
        "pixsift.extras.find_spec",
        lambda name: None if name == "transformers" else find_spec(name),
    )
    assert examine()[1]["model"]["state"] == "ok"
    machine.setenv("PIXSIFT_MODEL", str(tmp_path))
    found = examine()[1]["model"]
    assert found["detail"] == f"{tmp_path} needs transformers, which is not installed"
    assert found["remedy"] == "pip install 'pixsift[cpu]'"


def test_doctor__a_record_that_cannot_be_read_is_to_be_deleted(
    machine: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "loop.json").write_text("{")
    finding = examine()[1]["local loop"]
    assert finding["state"] == "wrong"
    assert finding["detail"].endswith("delete it")
    assert "pixsift down" not in finding["remedy"]


def test_doctor__for_people_every_wrong_line_has_its_remedy_below(
    machine: pytest.MonkeyPatch,
) -> None:
    machine.setenv("PIXSIFT_DATABASE_URL", "")
    lines = CliRunner().invoke(app, ["doctor"]).stdout.splitlines()
    index = next(i for i, line in enumerate(lines) if line.startswith("WRONG"))
    assert "ledger" in lines[index]
    assert "->" in lines[index + 1]
