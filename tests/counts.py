"""How many examples a property is tried with: few in ``make test``, many in ``make test-full``."""

import os

THOROUGH = os.environ.get("PIXSIFT_TEST_THOROUGH", "") not in {"", "0"}


def examples(*, quick: int, thorough: int) -> int:
    """The count for this run; ``PIXSIFT_TEST_THOROUGH=1`` asks for the larger one."""
    return thorough if THOROUGH else quick
