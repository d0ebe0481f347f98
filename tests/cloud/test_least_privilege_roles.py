"""Curator and jobs under their own policies, enforced; each part that is taken away is noticed.

Jobs are the commands of their task definitions, so that command and policy are tried together.
"""

from contextlib import ExitStack

import pytest

from cloud.enforced import REFUSED, Change, elsewhere, less, without
from cloud.scene import Scene, same
from faults.consumer_process import wait_until

CURATORS: dict[str, Change] = {
    "cur-read": without("ReadRaw"),
    "cur-version": less("ReadRaw", "s3:GetObjectVersion"),
    "cur-write": less("WriteSnapshots", "s3:PutObject"),
    "cur-receive": less("Requests", "sqs:ReceiveMessage"),
    "cur-delete": less("Requests", "sqs:DeleteMessage"),
    "cur-url": less("Requests", "sqs:GetQueueUrl"),
    "cur-tell": without("Tell"),
    "cur-raw": elsewhere("ReadRaw"),
}
"""Not among them: FindCurated and ListRaw tell missing from refused, which MiniStack does not; tags
of copies, which it copies without asking; AbortMultipartUpload, for copies above 5 GB."""
JOB_LOSSES: dict[str, tuple[str, Change]] = {
    "rec-list": ("reconcile", less("ListRaw", "s3:ListBucketVersions")),
    "rec-send": ("reconcile", less("Send", "sqs:SendMessage")),
    "rec-url": ("reconcile", less("Send", "sqs:GetQueueUrl")),
    "rec-raw": ("reconcile", elsewhere("ListRaw")),
    "aud-read": ("audit", without("ReadSnapshots")),
}
"""Not among them: ListSnapshots, see above; Password, as these jobs log in without the secret."""


@pytest.mark.full
def test_curator_and_jobs__work_with_their_policies_and_show_the_loss_of_any_part(
    scene: Scene,
) -> None:
    with ExitStack() as stack:
        sound = stack.enter_context(scene.curator("cur-whole", same))
        mutants = {name: stack.enter_context(scene.curator(name, change))
                   for name, change in CURATORS.items()}  # fmt: skip
        wait_until(lambda: scene.is_published("cur-whole"), seconds=240, what=sound.log_text)
        wait_until(lambda: scene.waiting("cur-whole") == 0, seconds=60, what=sound.log_text)
        assert not REFUSED.search(sound.log_text()), sound.log_text()

        def silent() -> dict[str, str]:
            logs = {name: mutant.log_text() for name, mutant in mutants.items()}
            return {name: log for name, log in logs.items() if not REFUSED.search(log)}

        wait_until(lambda: not silent(), seconds=120, what=lambda: str(silent()))

    # An object without an event: reconcile sends it.
    scene.cloud.client("s3").put_object(Bucket="roles-raw", Key="late.jpg", Body=b"late")
    for job in ("audit", "audit-sample", "doctor", "migrate"):
        status, lines = scene.job(f"job-{job}", job, same)
        assert status == 0, lines
    status, lines = scene.job("job-reconcile", "reconcile", same)
    assert status == 1 and not REFUSED.search(lines), lines  # something differed, and was sent
    for name, (job, change) in JOB_LOSSES.items():
        status, lines = scene.job(name, job, change)
        assert status != 0 and REFUSED.search(lines), (name, status, lines)
