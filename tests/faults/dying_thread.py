"""A consumer one of whose threads meets a bug: ``PIXSIFT_TEST_DYING`` names the thread."""

import os
from typing import Any, NoReturn

from pixsift.judging.pipeline import Pipeline
from pixsift.worker import VisibilityHeartbeat
from pixsift_consumer.consumer import Consumer
from pixsift_consumer.dependencies import SourceAccess
from pixsift_consumer.main import main


def _die(*_: Any, **__: Any) -> NoReturn:
    raise RuntimeError("a bug")


_PLACES: dict[str, tuple[type, str]] = {
    "housekeeping": (Consumer, "_flush_acks"),
    "heartbeat": (VisibilityHeartbeat, "beat"),
    "probes": (SourceAccess, "probe_due"),
    "commit": (Pipeline, "_settle"),
}

if __name__ == "__main__":
    setattr(*_PLACES[os.environ["PIXSIFT_TEST_DYING"]], _die)
    main()
