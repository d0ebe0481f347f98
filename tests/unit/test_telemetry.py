"""Metrics: declared in one place, documented, written as EMF."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pixsift.telemetry import METRICS, Telemetry, make_logger, metrics_page

ROOT = Path(__file__).resolve().parents[2]


def test_metrics__the_page_is_up_to_date() -> None:
    assert (ROOT / "docs" / "metrics.md").read_text("utf-8") == metrics_page(), (
        "write it anew: python -c 'from pixsift.telemetry import metrics_page; "
        'open("docs/metrics.md", "w").write(metrics_page())\''
    )


def test_flush__one_emf_document_with_sums_and_values(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry = Telemetry("test")
    telemetry.count("received", 2)
    telemetry.count("received")
    telemetry.observe("fetch_seconds", 0.5)
    telemetry.observe("fetch_seconds", 1.5)
    telemetry.flush()
    telemetry.flush()  # nothing gathered: nothing written
    [line] = capsys.readouterr().out.splitlines()
    document = json.loads(line)
    assert document["received"] == [3.0]
    assert document["fetch_seconds"] == [0.5, 1.5]
    assert document["_aws"]["CloudWatchMetrics"][0]["Namespace"] == "pixsift"


def test_flush__of_very_many_values_the_newest(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry = Telemetry("test")
    for value in range(250):
        telemetry.observe("fetch_seconds", value)
    telemetry.flush()
    [line] = capsys.readouterr().out.splitlines()
    assert json.loads(line)["fetch_seconds"] == list(range(151, 250))


def test_count__an_undeclared_name_is_a_mistake() -> None:
    with pytest.raises(KeyError, match="not declared"):
        Telemetry("test").count("no_such_metric")


def test_logger__one_json_object_per_line(capsys: pytest.CaptureFixture[str]) -> None:
    make_logger("test-logger").info("hello", extra={"count": 3})
    document = json.loads(capsys.readouterr().out)
    assert (document["message"], document["count"]) == ("hello", 3)


def test_metrics__each_is_recorded_somewhere() -> None:
    """A metric that is never recorded leaves a dashboard empty."""
    code = "\n".join(
        path.read_text("utf-8")
        for folder in ("services", "shared")
        for path in (ROOT / folder).rglob("*.py")
    )
    recorded = set(re.findall(r"\.(?:count|observe|timed)\(\s*\"(\w+)\"", code))
    outcomes = {name for name in METRICS if name.startswith("outcome_")}
    assert set(METRICS) - recorded == outcomes, "by their f-string in stages.Commit"


def test_flush__two_stages_of_one_account_do_not_mix() -> None:
    """Each in a process of its own, as Powertools keeps dimensions per process."""
    for stage in ("test", "prod"):
        code = f"""from pixsift.telemetry import Telemetry
t = Telemetry("stages", stage={stage!r}); t.count("received"); t.flush()"""
        environment = {"PYTHONPATH": str(ROOT / "shared")}
        written = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, check=True
        ).stdout
        document = json.loads(written)
        assert document["stage"] == stage
        (metrics,) = document["_aws"]["CloudWatchMetrics"]
        assert {frozenset(d) for d in metrics["Dimensions"]} == {frozenset({"service", "stage"})}


def test_make_logger__a_name_from_outside_is_one_line_of_ascii(
    capsys: pytest.CaptureFixture[str],
) -> None:
    key = "a\x1b[2J\r\n\x9b31m\u2028\u202e{}"
    make_logger("hostile").warning(key, extra={"key": key, key: 1})
    written = capsys.readouterr().out
    assert written.isascii() and len(written.splitlines()) == 1
    assert not set("\x1b\r") & set(written)
    assert json.loads(written)["key"] == key
