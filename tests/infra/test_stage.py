"""A stage file that cannot be deployed is one line, before anything is synthesized."""

from pathlib import Path

import pytest
from pydantic import BaseModel

from pixsift_infra import scaling
from pixsift_infra.stage import STAGES, Stage, StageError, read_stage


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("colour = 1", "colour is no key"),
        ("[events]\nspace = []", r"events\.space is no key"),
        ("[network]\nvpc_id = 'vpc-1'", "vpc_id without two subnet_ids"),
        ("[network]\nvpc_id = 'vpc-1'\nsubnet_ids = ['subnet-1']", "subnets in two zones"),
        ("[network]\nsubnet_ids = ['a', 'b']", "subnet_ids without vpc_id"),
        ("[network]\negress = 'none'", r"network\.egress"),
        ("[events]\nspaces = ['a', 'a']", "named twice"),
        ("[events]\nspaces = []", r"events\.spaces"),
        ("[events]\nraw_account = '123456789012'", "raw_account without raw_bucket"),
        ("[[events.schedules]]\nexpression = 'daily'", r"events\.schedules\.0\.expression"),
        ("[[events.schedules]]\nexpression = 'rate(1 day)'\ncollection = 'A b'", "collection"),
        ("[database]\nkind = 'given'", "secret_arn belong together"),
        ("[compute]\nmax_consumers = 9", r"compute\.max_consumers"),
        ("[compute]\nserver = true", "server without server_names"),
        ("[compute]\nserver_names = ['a b']", r"compute\.server_names\.0"),
        ("prefix = 'a-prefix-that-is-far-too-long'", "prefix"),
        ("name", "cannot be read"),
    ],
)
def test_read_stage__names_file_key_and_remedy(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(StageError, match=words) as told:
        read_stage("mine", tmp_path)
    assert "mine.toml" in str(told.value) and "\n" not in str(told.value).replace(text, "")


def test_read_stage__that_is_not_there_names_those_that_are() -> None:
    with pytest.raises(StageError, match=r"there is no stage 'production'.*dev, local, prod"):
        read_stage("production")


@pytest.mark.parametrize("path", sorted(STAGES.glob("*.toml")), ids=lambda path: path.stem)
def test_stages__of_the_repository_are_valid_and_frozen(path: Path) -> None:
    stage = read_stage(path.stem)
    assert stage.name == path.stem
    with pytest.raises(ValueError, match="frozen"):
        stage.name = "x"


def test_stage__every_key_is_described() -> None:
    def check(model: type[BaseModel]) -> None:
        for name, field in model.model_fields.items():
            kind = field.annotation
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                check(kind)
            else:
                assert field.description, f"{model.__name__}.{name}"

    check(Stage)


def test_bucket_names__fit_s3_with_the_longest_prefix_and_region() -> None:
    assert len(f"{'p' * 24}-curated-{'1' * 12}-ap-southeast-5") <= 63


@pytest.mark.parametrize(
    ("now", "visible", "hidden", "dead", "expected"),
    [
        (0, 0, 0, 0, 0),
        (0, 1, 0, 0, 1),  # one image wakes one consumer
        (0, 0, 0, 1, 1),  # also for a dead letter: only the consumer reads it
        (0, 0, 9, 0, 0),  # what is hidden comes back by itself
        (1, 20_000, 128, 0, 1),
        (1, 27_001, 0, 0, 2),
        (1, 10**7, 0, 0, 4),  # the lock feeds no more
        (3, 100, 0, 0, 3),  # scaling in waits until all is done
        (3, 0, 0, 1, 3),
        (3, 0, 0, 0, 0),
    ],
)
def test_scaling__zero_to_one_to_n_to_zero(
    now: int, visible: int, hidden: int, dead: int, expected: int
) -> None:
    per_consumer = scaling.backlog_per_consumer(450)
    assert per_consumer == 27_000
    assert expected == scaling.wanted(
        now, visible=visible, hidden=hidden, dead=dead, per_consumer=per_consumer, most=4
    )
    # The expressions that CloudWatch gets say the same.
    values = {"running": now, "visible": visible, "hidden": hidden, "dead": dead}
    wakes = _evaluate(scaling.WAKE, values)
    idle = _evaluate(scaling.IDLE, values)
    load = _evaluate(scaling.LOAD, values)
    if now == 0:
        assert wakes == (expected == 1)
    elif idle:
        assert expected == 0
    else:
        assert expected == max(now, min(4, -(-round(load * max(now, 1)) // per_consumer)))


def _evaluate(expression: str, values: dict[str, int]) -> float:
    """CloudWatch's IF, FILL, AND and OR, as Python has them."""
    text = expression.replace("AND", "and")
    names = {"IF": lambda c, a, b: a if c else b, "FILL": lambda value, _: value, **values}
    return float(eval(text, {"__builtins__": {}}, names))  # noqa: S307 - our own constants
