"""The Python client of pixsift-server: httpx and the models of its answers, nothing heavier.

See ``Client``, and the examples in docs/server.md.
"""

from pixsift.client.client import Client, ProblemError, arrow, frame

__all__ = ["Client", "ProblemError", "arrow", "frame"]
