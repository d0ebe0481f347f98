"""Exit 0 when the package index named on the command line answers within 3 seconds.

Only HTTPS, or this machine itself: what is installed from there is not checked by hash.
"""

import sys
import urllib.request

TIMEOUT_SECONDS = 3


def answers(index: str) -> bool:
    """Whether ``index`` knows torch; an empty name, a refusal and silence all mean no."""
    if not index.startswith(("https://", "http://127.0.0.1:")):
        return False
    try:
        with urllib.request.urlopen(f"{index}/torch/", timeout=TIMEOUT_SECONDS) as response:  # noqa: S310
            return bool(response.status == 200)
    except OSError:
        return False


if __name__ == "__main__":
    sys.exit(0 if answers(sys.argv[1].rstrip("/")) else 1)
