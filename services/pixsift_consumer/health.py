"""The container's health command: was the heartbeat file touched lately?

``python -m pixsift_consumer.health`` exits 0 or 1. Standard library only, as it starts every half
minute beside the consumer. The file is touched every turn of the loop, and whenever an object is
done, since a turn may hold a thousand. A consumer that waits for a dependency touches it as well:
it is alive, and killing it would not bring the dependency back.
"""

import os
import sys
import time
from pathlib import Path

MAX_AGE_SECONDS = 120.0
"""Well above a long poll of 20 s and the slowest batch of a CPU."""


def problem(path: str, *, now: float, max_age_seconds: float = MAX_AGE_SECONDS) -> str | None:
    """What is wrong with the heartbeat, or None. now: seconds since the epoch."""
    if not path:
        return "PIXSIFT_HEALTH_FILE is not set: there is no heartbeat to look at"
    try:
        age = now - Path(path).stat().st_mtime
    except OSError as error:
        return f"no heartbeat: {error}"
    return f"last heartbeat {age:.0f} s ago" if age > max_age_seconds else None


def main() -> None:
    """Exit 1 with a line on stderr when the consumer seems to hang."""
    if found := problem(os.environ.get("PIXSIFT_HEALTH_FILE", ""), now=time.time()):
        sys.stderr.write(f"{found}\n")
        sys.exit(1)


if __name__ == "__main__":
    main()
