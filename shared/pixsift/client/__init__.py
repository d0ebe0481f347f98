"""The Python client of pixsift-server: httpx and the models of its answers, nothing heavier.

See ``Client``, and the examples in docs/server.md.
"""

from pixsift.client.client import Client, ProblemError

__all__ = ["Client", "ProblemError"]
