"""Errors, grouped by what the caller should do about them.

    PixsiftError
    ├── PermanentError         record the outcome and its reason, acknowledge
    ├── TransientError         release the message with a delay, try again
    ├── DependencyDownError    stop receiving until the dependency answers again
    │   ├── AccessDeniedError  refused: this one object, or everything? never "gone"
    │   └── DeviceLostError    give everything back and end the process: only a new one can go on
    └── UserError              the person at the keyboard can mend it: one line, with the remedy

Adapters translate what their library raises, with ``raise ... from exc``; nothing above them
catches ``ClientError`` or ``psycopg.Error``. Anything else is a bug and ends the batch loudly.
"""


class PixsiftError(Exception):
    """Something pixsift knows how to react to."""


class PermanentError(PixsiftError):
    """Trying again cannot help; ``reason`` is the short code that the ledger stores."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


class ObjectGoneError(PermanentError):
    """The object version no longer exists at S3 (confirmed there, not inferred)."""


class TransientError(PixsiftError):
    """The same call may succeed later: throttling, a cut connection, a lost race."""


class DependencyDownError(PixsiftError):
    """A dependency does not answer or refuses us; receiving more would only burn receive counts."""


class AccessDeniedError(DependencyDownError):
    """S3 refuses an object (403, a disabled key, a skewed clock). Never the same as gone: without
    the permission to list, S3 answers 403 for missing keys as well."""


class DeviceLostError(DependencyDownError):
    """The accelerator fails, or has no room for one image. Says nothing about any image; a CUDA
    context that has failed once never works again, so waiting in this process is no use."""


class UserError(PixsiftError):
    """A mistake in a setting, argument or request; the message names it and the remedy."""
