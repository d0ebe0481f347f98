"""``pixsift collection``, ``status``, ``explain``, ``whatif`` and ``redecide`` on a real ledger."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from ledger_world import finding, image, ledger_of, turned
from pixsift.adapters.calibration.calibrations import default_calibration
from pixsift.adapters.models.stub_embedder import StubEmbedder
from pixsift.core.sources import DEFAULT_KEY_PATTERN

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(database_url: str, monkeypatch: pytest.MonkeyPatch, run_pixsift: Run) -> Run:
    """Runs the command as a user would: exit status, standard output, standard error."""
    monkeypatch.setenv("PIXSIFT_DATABASE_URL", database_url)
    monkeypatch.setenv("PIXSIFT_MODEL", "stub")
    for name, value in {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)

    return run_pixsift


@pytest.fixture
def journal(run: Run, request: pytest.FixtureRequest) -> None:
    """A bucket for it: for commands that decide. After ``run``, whose AWS does not answer."""
    request.getfixturevalue("curated")


@pytest.fixture
def made(run: Run) -> dict[str, Any]:
    status, out, err = run(
        "collection", "create", "yard", "--source", "s3://raw/site-a/", "--exclude", "*.json",
        "--epsilon", "0.05", "--second-look", "off", "--quality-policy", '{"blurred": "reject"}',
        "--json",
    )  # fmt: skip
    assert status == 0, err
    facts: dict[str, Any] = json.loads(out)
    return facts


def test_create__says_how_to_judge_what_is_there_already(run: Run) -> None:
    out = run(
        "collection", "create", "yard", "--source", "s3://raw/a/", "--source", "s3://more",
        "--epsilon", "0.05", "--second-look", "off",
    )[1]  # fmt: skip
    assert "pixsift backfill s3://raw/a/\n" in out and "pixsift backfill s3://more/" in out


def test_create__settings_are_stored(made: dict[str, Any], run: Run) -> None:
    assert made["sources"] == [
        {"bucket": "raw", "prefix": "site-a/", "include": [], "exclude": ["*.json"]}
    ]
    assert (made["key_pattern"], made["expiry_policy"]) == (DEFAULT_KEY_PATTERN, "remember")
    assert (made["generation"], made["seq"], made["epsilon"]) == (1, 0, 0.05)
    status, out, _ = run("collection", "show", "yard", "--json")
    assert status == 0
    assert json.loads(out)["counts"]["outcomes"]["kept"] == 0
    assert "s3://raw/site-a/ exclude *.json" in run("collection", "show", "yard")[1]
    assert "yard" in run("collection", "list")[1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["create", "x"], "--source"),
        (["create", "x", "--source", "raw/site"], "s3://bucket/key"),
        (["create", "x", "--source", "s3://No Such Bucket!!/"], "invalid bucket name"),
        (["create", "x", "--source", "s3://raw", "--epsilon", "3"], "between 0 and 2"),
        (["create", "x", "--source", "s3://raw", "--epsilon", "0.1", "--key-pattern", "("],
         "regular expression"),
        (["create", "x", "--source", "s3://raw", "--epsilon", "0.1", "--quality-policy",
          '{"sharpnes": "off"}'], "--quality-policy"),
        (["create", "x", "--source", "s3://raw", "--epsilon", "0.1", "--second-look", "nofile"],
         "neither JSON nor a JSON file"),
        (["create", "x", "--source", "s3://raw", "--epsilon", "0.1", "--expiry", "forget"],
         "remember"),
        (["create", "No Spaces", "--source", "s3://raw", "--epsilon", "0.1"], "collection name"),
        (["create", "x", "--source", "s3://raw", "--model", "no-such-model"], "model"),
        (["show", "nowhere"], "no collection 'nowhere'"),
    ],
)  # fmt: skip
def test_mistakes__one_line_with_the_remedy(run: Run, arguments: list[str], words: str) -> None:
    status, _, err = run("collection", *arguments)
    assert status == 2
    assert words in err
    assert "Traceback" not in err


def test_create__what_ships_for_the_model_is_the_default(run: Run) -> None:
    status, out, err = run("collection", "create", "plain", "--source", "s3://raw", "--json")
    assert status == 0, err
    made = json.loads(out)
    assert (made["epsilon"], made["calibration"]) == (0.15, None)
    assert made["second_look"]["narrow"] == 0.03
    assert made["second_look"] is not None
    assert "not calibrated" in run("collection", "show", "plain")[1]


def test_status__says_in_a_line_that_the_rule_was_not_measured_with_the_model(
    run: Run, tmp_path: Path
) -> None:
    run("collection", "create", "plain", "--source", "s3://raw/plain")
    file = tmp_path / "calibration.json"
    measured = default_calibration(StubEmbedder().space).to_json() | {"calibrated": True}
    file.write_text(json.dumps(measured))
    run("collection", "create", "mine", "--source", "s3://raw/m", "--calibration", str(file))
    by_name = {c["name"]: c for c in json.loads(run("status", "--json")[1])["collections"]}
    rules = {name: (found["model"], found["calibrated"]) for name, found in by_name.items()}
    assert rules == {"plain": ("stub", False), "mine": ("stub", True)}
    lines = [line.strip() for line in run("status")[1].splitlines() if "calibrat" in line]
    assert lines == [
        "rule not calibrated: epsilon 0.15 was not measured with stub; pixsift calibrate does "
        "that on your images"
    ]


@pytest.mark.usefixtures("journal")
def test_create__a_calibration_of_another_model_is_refused(run: Run, tmp_path: Path) -> None:
    measured = default_calibration(StubEmbedder().space).to_json() | {"epsilon": 0.07}
    file = tmp_path / "calibration.json"
    file.write_text(json.dumps(measured | {"calibrated": True}))
    source = ("--source", "s3://raw", "--calibration", str(file))
    status, out, err = run("collection", "create", "mine", *source, "--json")
    assert status == 0, err
    made = json.loads(out)
    assert (made["epsilon"], made["second_look"]["narrow"]) == (0.2, 0.07)
    assert ", calibrated" in run("collection", "show", "mine")[1]
    run("redecide", "mine", "--epsilon", "0.07", "--no-second-look")
    said = "not calibrated (its calibration says 0.07, with a second look)"
    assert said in run("collection", "show", "mine")[1]
    file.write_text(json.dumps(measured | {"weights_sha256": "other"}))
    status, _, err = run("collection", "create", "theirs", *source)
    assert status == 2
    assert "was measured with" in err


def test_set__changes_what_is_asked_and_nothing_else(made: dict[str, Any], run: Run) -> None:
    status, out, err = run("collection", "set", "yard", "--expiry", "redecide", "--json")
    assert status == 0, err
    changed = json.loads(out)
    assert changed["expiry_policy"] == "redecide"
    assert changed["sources"] == made["sources"]
    assert changed["quality_policy"] == {"blurred": "reject"}
    assert changed["key_pattern"] == made["key_pattern"]
    assert json.loads(run("collection", "set", "yard", "--key-pattern", "", "--json")[1])[
        "key_pattern"
    ] is None  # fmt: skip


def test_status__tells_what_the_queues_cannot(
    made: dict[str, Any], run: Run, database_url: str
) -> None:
    with ledger_of(database_url) as ledger:
        ledger.commit(ledger.collection("yard"), [finding("r", "rejected", "blurred")])
    status, out, _ = run("status", "--json")
    assert status == 0
    facts = json.loads(out)
    assert facts["collections"][0]["outcomes"]["rejected"] == 1
    assert facts["collections"][0]["decisions_last_minute"] == 1
    assert facts["queues"]["ingest"]["waiting"] is None
    assert facts["queues"]["ingest"]["error"]
    assert "does not respond" in run("status")[1]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"AWS_REGION": None, "AWS_DEFAULT_REGION": None}, "no region"),
        ({"AWS_ENDPOINT_URL": "localhost:4566"}, "endpoint"),
    ],
)
def test_status__shows_the_ledger_whatever_the_shells_aws_is(
    made: dict[str, Any],
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    change: dict[str, str | None],
    told: str,
) -> None:
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    for name, value in change.items():
        monkeypatch.delenv(name) if value is None else monkeypatch.setenv(name, value)
    status, out, _ = run("status", "--json")
    assert status == 0
    facts = json.loads(out)
    assert facts["collections"][0]["name"] == "yard"
    assert [told in queue["error"] for queue in facts["queues"].values()] == [True] * 4


def test_status__cuts_nothing_on_a_narrow_terminal(
    made: dict[str, Any], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    _, out, _ = run("status")
    assert out.splitlines()[0] == "yard               generation 1, seq 0"
    assert "0 kept, 0 duplicate, 0 rejected, 0 gone, 0 failed" in out
    assert "…" not in out


def test_status__watch_refreshes_until_interrupted(
    made: dict[str, Any], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns: list[float] = []

    def sleep(seconds: float) -> None:
        if seconds == 0.5:  # others wait too: the SDK between its tries
            turns.append(seconds)
        if len(turns) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr("pixsift_cli.status.time.sleep", sleep)
    status, out, _ = run("status", "--watch", "--every", "0.5")
    assert (status, turns) == (0, [0.5] * 3)
    assert "yard" in out


def commit_a_pair(url: str) -> None:
    """Three images in the stub's space: one kept, one near it, one with the same pixels."""
    with ledger_of(url) as ledger:
        collection = ledger.collection("yard")
        dimension = 384
        ledger.commit(
            collection,
            [
                image("site-a/robot-2/cam-front/2026-11-22T10-15-03.250Z.jpg",
                      turned(0, dimension), quality={"sharpness": 0.5}, size_bytes=7),
                image("site-a/near.jpg", turned(10, dimension)),
                image("site-a/twin.jpg", turned(0, dimension),
                      pixels="site-a/robot-2/cam-front/2026-11-22T10-15-03.250Z.jpg@v1"),
            ],
        )  # fmt: skip


def test_explain__recomputes_the_distance(
    made: dict[str, Any], run: Run, database_url: str
) -> None:
    commit_a_pair(database_url)
    (story,) = json.loads(run("explain", "s3://raw/site-a/near.jpg", "--json")[1])
    chapter = story["collections"][0]
    assert (chapter["outcome"], chapter["reason"]) == ("duplicate", "near")
    assert chapter["proof"]["verifies"] is True
    assert chapter["proof"]["recomputed_distance"] == chapter["proof"]["stored_distance"]
    text = run("explain", "s3://raw/site-a/near.jpg")[1]
    assert "they match" in text and "near-duplicate" in text and "in no snapshot" in text


def test_explain__the_kept_one(made: dict[str, Any], run: Run, database_url: str) -> None:
    commit_a_pair(database_url)
    uri = "s3://raw/site-a/robot-2/cam-front/2026-11-22T10-15-03.250Z.jpg"
    (story,) = json.loads(run("explain", uri, "--json")[1])
    chapter = story["collections"][0]
    assert chapter["attributes"]["robot"] == "robot-2"
    assert chapter["stands_for"]["count"] == 2
    assert story["object"]["quality"] == {"sharpness": 0.5}
    text = run("explain", uri)[1]
    assert "robot=robot-2" in text and "represents      2 duplicates" in text


def test_explain__a_distance_that_was_tampered_with(
    made: dict[str, Any], run: Run, database_url: str
) -> None:
    commit_a_pair(database_url)
    with ledger_of(database_url) as ledger, ledger._database.connection() as connection:
        connection.execute(
            "UPDATE embedding SET embedding = %(far)s WHERE pixel_sha256 ="
            " (SELECT pixel_sha256 FROM object WHERE key = 'site-a/near.jpg')",
            {"far": turned(80, 384)},
        )
    assert "THEY DIFFER" in run("explain", "s3://raw/site-a/near.jpg")[1]


def test_explain__unknown_objects_get_a_hint(
    made: dict[str, Any], run: Run, database_url: str
) -> None:
    commit_a_pair(database_url)
    status, _, err = run("explain", "s3://raw/site-a/nea.jpg")
    assert status == 2
    assert "site-a/near.jpg" in err


@pytest.mark.usefixtures("journal")
def test_whatif_and_redecide__tell_the_same(
    made: dict[str, Any], run: Run, database_url: str
) -> None:
    commit_a_pair(database_url)
    asked = json.loads(run("whatif", "yard", "--epsilon", "0.001", "--json")[1])
    assert (asked["kept_now"], asked["kept"], asked["newly_kept"]) == (1, 2, 1)
    assert "s3://raw/site-a/near.jpg" in run("whatif", "yard", "--epsilon", "0.001")[1]
    done = json.loads(run("redecide", "yard", "--epsilon", "0.001", "--json")[1])
    assert (done["generation"], done["kept"]) == (2, 2)
    assert run("whatif", "yard", "--epsilon", "7")[0] == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ["explain", "s3://b/\udcff"],
        ["collection", "show", "\udcff"],
        ["collection", "create", "x", "--source", "s3://b/\udcff"],
        ["collection", "create", "x", "--source", "s3://b", "--quality-policy", '{"a":' * 100_000],
        ["reconcile", "--older-than", "1e300"],
        ["reconcile", "--older-than", "nan"],
    ],
)
def test_command__what_nobody_can_read_is_a_users_mistake(run: Run, arguments: list[str]) -> None:
    status, _, err = run(*arguments)
    assert status == 2
    assert len(err) < 2000


def test_explain__control_characters_of_a_key_do_not_reach_the_terminal(
    made: dict[str, Any], run: Run, database_url: str
) -> None:
    key = "site-a/\x1b[2J.jpg"
    with ledger_of(database_url) as ledger:
        ledger.commit(ledger.collection("yard"), [finding(key, "rejected", "blurred")])
    status, out, err = run("explain", f"s3://raw/{key}")
    assert status == 0, err
    assert "\x1b" not in out
    assert "site-a/\\x1b[2J.jpg" in out
    assert "\x1b" not in run("explain", f"s3://raw/{key}x")[2]


def test_explain__tells_the_decoders_message_and_whose_time_it_is(
    made: dict[str, Any], run: Run, database_url: str
) -> None:
    message = {"message": "premature end\x1b of data segment"}
    broken = replace(
        finding("site-a/x.jpg", "rejected", "corrupt"), detail=message,
        stored_at=datetime(2026, 11, 22, 8, tzinfo=UTC),
    )  # fmt: skip
    with ledger_of(database_url) as ledger:
        ledger.commit(ledger.collection("yard"), [broken])
    _, out, _ = run("explain", "s3://raw/site-a/x.jpg")
    assert r"premature end\x1b of data segment" in out
    assert "stored at 2026-11-22 08:00:00 UTC" in out


def test_status__a_growing_share_of_refusals_is_told(
    made: dict[str, Any], run: Run, database_url: str
) -> None:
    with ledger_of(database_url) as ledger:
        collection = ledger.collection("yard")
        for number in range(6):
            reason = "unsupported_format" if number >= 4 else "blurred"
            ledger.commit(
                collection,
                [finding(f"site-a/{number}-{i}.bmp", "rejected", reason) for i in range(10)],
            )
    _, out, _ = run("status")
    assert "attention: 66.7% of the newest 30 decisions are unsupported format" in out
    assert "blurred" not in out


@pytest.mark.usefixtures("journal")
def test_epsilon__near_the_embedders_own_noise_is_warned_of(run: Run, tmp_path: Path) -> None:
    measured = default_calibration(StubEmbedder().space).to_json()
    file = tmp_path / "calibration.json"
    file.write_text(json.dumps(measured | {"calibrated": True, "noise": 0.001}))
    source = ("--source", "s3://raw", "--calibration", str(file))
    assert "warning" not in run("collection", "create", "sound", *source)[2]
    for command in (("collection", "create", "noisy", *source), ("whatif", "sound"),
                    ("redecide", "sound")):  # fmt: skip
        status, _, err = run(*command, "--epsilon", "0.005")
        assert status == 0
        assert "epsilon 0.005 is not 10 times the embedder's own noise (0.001)" in err
