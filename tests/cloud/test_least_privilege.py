"""The consumer under its own policy, enforced: with it all works, without any part it shows.

The statements are those that CDK writes into the role (``tests/infra`` compares them). Consumers
run at the same time, each with a role, queues and buckets of its own. What counts as noticed is a
refusal that the process itself reports, or a thumbnail that is not there; never that it is slow.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from cloud.conftest import Cloud
from cloud.enforced import REFUSED, Change, World, elsewhere, less, without
from cloud.s3_rules import s3_rules
from faults.consumer_process import ConsumerProcess, outcomes, wait_until
from pixsift.adapters.ledger.ledger import Ledger
from pixsift.adapters.models.load import load_embedder
from pixsift.adapters.postgres.database import Database
from pixsift.core.sources import SourceRule
from pixsift_infra.policies import consumer

MUTATIONS: dict[str, Change] = {
    "no-read": without("ReadRaw"),
    "no-list": without("ListRaw"),
    "no-thumbs": without("WriteThumbnails"),
    "no-derived": without("FindDerived"),
    "no-ingest": without("Ingest"),
    "no-dlq": without("DeadLetters"),
    "no-version": less("ReadRaw", "s3:GetObjectVersion"),
    "no-send": less("Ingest", "sqs:SendMessage"),
    "no-delete": less("Ingest", "sqs:DeleteMessage"),
    "other-raw": elsewhere("ReadRaw"),
    "no-journal": without("FindJournal"),
}
"""MiniStack answers 404 for what is missing, with or without the right to list: ``s3_rules`` puts
AWS's 403 in its place. A consumer without thumbnails goes on; they are missing afterwards."""
QUIET = {"no-thumbs"}


@pytest.fixture
def ledger(database_url: str) -> Iterator[Ledger]:
    with Database(database_url) as database:
        yield Ledger(database, actor="test")


def test_consumer__works_with_its_policy_and_shows_the_loss_of_any_part(
    ministack: Cloud, database_url: str, ledger: Ledger, tmp_path: Path
) -> None:
    space = load_embedder("stub").space
    ledger.ensure_space(space)
    with ExitStack() as stack:
        s3_url, cannot_list = stack.enter_context(s3_rules(ministack.url))

        def start(name: str, change: Change) -> tuple[ConsumerProcess, set[str]]:
            world = World(ministack, name)
            ledger.create_collection(
                name, sources=[SourceRule(f"{name}-raw")], space_id=space.space_id, epsilon=0.02
            )
            statements = change(consumer(world.places))
            environment = world.login(statements)
            environment["AWS_ENDPOINT_URL_S3"] = s3_url
            if not any(s["Sid"] == "ListRaw" for s in statements):
                cannot_list.add(environment["AWS_ACCESS_KEY_ID"])
            expected = world.upload()
            environment["PIXSIFT_DATABASE_URL"] = database_url
            process = ConsumerProcess(environment, log=tmp_path / name)
            return stack.enter_context(process), expected

        sound, expected = start("whole", lambda statements: statements)
        mutants = {name: start(name, change)[0] for name, change in MUTATIONS.items()}
        wait_until(lambda: set(outcomes(database_url, "whole")) == expected, seconds=240,
                   what=sound.log_text)  # fmt: skip
        found = {k.partition("@")[0]: o[0] for k, o in outcomes(database_url, "whole").items()}
        assert found == {"one.jpg": "kept", "two.jpg": "kept", "gone.jpg": "gone"}
        assert not REFUSED.search(sound.log_text()), sound.log_text()

        def silent() -> dict[str, str]:
            logs = {name: mutant.log_text() for name, mutant in mutants.items()
                    if name not in QUIET}  # fmt: skip
            return {name: log for name, log in logs.items() if not REFUSED.search(log)}

        wait_until(lambda: not silent(), seconds=90, what=lambda: str(silent()))
        wait_until(lambda: len(outcomes(database_url, "no-thumbs")) == 3, seconds=90,
                   what=mutants["no-thumbs"].log_text)  # fmt: skip

    def thumbnails(name: str) -> int:
        return int(ministack.client("s3").list_objects_v2(Bucket=f"{name}-derived")["KeyCount"])

    # Stopped: what was on its way is there.
    assert (thumbnails("whole"), thumbnails("no-thumbs")) == (2, 0)
