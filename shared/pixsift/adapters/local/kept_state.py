"""What a stopped local loop keeps besides its ledger: objects of S3 and messages of SQS.

LocalStack forgets both when it stops. Objects are saved and loaded inside of it
(``localstack_main``), so that their version ids stay what the ledger says. Messages are listed
without being received, and sent again; only their ids and receive counts are new.
"""

import json
import shutil
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from pixsift.adapters.aws.client import sqs_client
from pixsift.adapters.local.localstack_main import LOAD, SAVE
from pixsift.errors import DependencyDownError

_SECONDS = 600.0


class KeptState:
    """The saved objects and messages of one local loop, below its state folder."""

    def __init__(self, state: Path) -> None:
        self.objects = state.absolute() / "objects"
        self._messages = state.absolute() / "messages.json"

    def exists(self) -> bool:
        """Whether a loop was saved here."""
        return self.objects.is_dir()

    def delete(self) -> None:
        """Forget both."""
        shutil.rmtree(self.objects, ignore_errors=True)
        self._messages.unlink(missing_ok=True)

    def save(self, endpoint: str) -> int:
        """Write what the LocalStack at ``endpoint`` holds; returns the number of object versions.

        Nothing else may write at that time: the services are stopped before.
        """
        count = _post(endpoint, SAVE)
        text = json.dumps(_messages(endpoint))
        beside = self._messages.with_suffix(".new")
        beside.touch(mode=0o600)
        beside.write_text(text, "utf-8")
        beside.replace(self._messages)
        return count

    def load(self, endpoint: str) -> int:
        """Fill a fresh LocalStack, whose stack is deployed; returns the number of versions."""
        count = _post(endpoint, LOAD)
        if self._messages.exists():
            sqs = sqs_client()
            for queue, bodies in json.loads(self._messages.read_text("utf-8")).items():
                url = sqs.get_queue_url(QueueName=queue)["QueueUrl"]
                for body in bodies:
                    sqs.send_message(QueueUrl=url, MessageBody=body)
        return count


def _messages(endpoint: str) -> dict[str, list[str]]:
    """Bodies by queue, those in flight and delayed included."""
    found = {}
    for url in sqs_client().list_queues().get("QueueUrls", []):
        query = urlencode({"QueueUrl": url, "ShowInvisible": "true", "ShowDelayed": "true"})
        answer = json.loads(_call(f"{endpoint}/_aws/sqs/messages?{query}", "GET"))
        result = answer["ReceiveMessageResponse"]["ReceiveMessageResult"] or {}
        messages = result.get("Message") or []
        listed = messages if isinstance(messages, list) else [messages]
        if listed:
            found[url.rsplit("/", 1)[-1]] = [message["Body"] for message in listed]
    return found


def _post(endpoint: str, path: str) -> int:
    answer: dict[str, Any] = json.loads(_call(f"{endpoint}{path}", "POST"))
    return int(answer["objects"])


def _call(url: str, method: str) -> bytes:
    # A proxy in the environment must not handle calls to this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(url, method=method, headers={"Accept": "application/json"})  # noqa: S310
    try:
        with opener.open(request, timeout=_SECONDS) as response:
            content: bytes = response.read()
            return content
    except (urllib.error.URLError, OSError) as error:
        detail = error.read().decode(errors="replace")[-500:] if hasattr(error, "read") else ""
        raise DependencyDownError(f"LocalStack: {url} failed: {error} {detail}".strip()) from error
