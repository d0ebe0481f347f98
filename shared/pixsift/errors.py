"""Errors, grouped by what the caller should do about them.

    PixsiftError
    ├── PermanentError         record the outcome and its reason, acknowledge
    ├── TransientError         release the message with a delay, try again
    ├── DependencyDownError    stop receiving until the dependency answers again
    │   ├── AccessDeniedError  refused for one object or for everything; never "gone"
    │   ├── BucketDownError    one bucket does not answer: its messages wait, others go on
    │   ├── OtherSpaceError    a consumer of another embedding space wants it: give it back
    │   ├── LoginRefusedError  end the process after two minutes: a new one gets a new password
    │   └── DeviceLostError    give everything back and end the process: only a new one can go on
    └── UserError              the caller can correct it; never raised itself, only as one of these
        ├── SettingError       a setting, a package or a machine is not as it must be (HTTP 500)
        ├── NotFoundError      what was named does not exist (404)
        ├── ConflictError      it exists, but its state does not allow this now (409)
        └── RequestError       the request itself is wrong (400)

Every error has a ``code`` that programs may rely on, and a message that names what is wrong. What
to do about it is data, a ``Remedy``: a terminal words it as a command or a flag
(``pixsift.remedies``), a server as a problem document. No code looks for a reason in a message.

Adapters translate what their library raises, with ``raise ... from exc``; nothing above them
catches ``ClientError`` or ``psycopg.Error``. Anything else is a bug and ends the batch loudly.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

RemedyCode = Literal[
    "audit",
    "calibrate",
    "check_aws",
    "check_database",
    "choose_model",
    "create_collection",
    "curate_first",
    "enable_versioning",
    "grant",
    "install_extra",
    "install_localstack",
    "list_collections",
    "list_snapshots",
    "migrate",
    "name_camera",
    "name_collection",
    "name_ledger",
    "name_model",
    "name_output",
    "name_photos",
    "name_source",
    "protect_again",
    "read_decoder_message",
    "redecide",
    "reembed",
    "repair_state",
    "restart_loop",
    "restart_saved_loop",
    "restart_services",
    "run_both",
    "set_aws",
    "set_database_url",
    "skip_unknown",
    "start_loop",
    "start_loop_or_not",
    "take_at_most",
    "take_over",
    "use_its_model",
    "use_seccomp",
]


@dataclass(frozen=True, slots=True)
class Remedy:
    """What the caller can do, as data; an entry point words it."""

    code: RemedyCode
    arguments: Mapping[str, str] = field(default_factory=dict)


class PixsiftError(Exception):
    """An error that pixsift knows how to react to."""

    default_code: ClassVar[str] = "failed"

    def __init__(
        self, message: str = "", *, code: str | None = None, remedy: Remedy | None = None
    ) -> None:
        super().__init__(message)
        self.code = code or self.default_code
        self.remedy = remedy


class PermanentError(PixsiftError):
    """Trying again cannot help; ``reason`` is the short code that the ledger stores."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason, code=reason)
        self.args = (reason, detail)  # the arguments of a pickled copy
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}" if self.detail else self.reason


class ObjectGoneError(PermanentError):
    """The object version no longer exists at S3 (confirmed there, not inferred)."""


TransientReason = Literal["access_denied", "try_again"]
"""``access_denied``: S3 refuses this one object while it hands out others."""


class TransientError(PixsiftError):
    """The same call may succeed later: throttling, a cut connection, a lost race."""

    def __init__(
        self,
        message: str = "",
        *,
        reason: TransientReason = "try_again",
        remedy: Remedy | None = None,
    ) -> None:
        super().__init__(message, code=reason, remedy=remedy)
        self.reason = reason


class DependencyDownError(PixsiftError):
    """A dependency does not answer or refuses us; receiving more would only burn receive counts."""

    default_code = "dependency_down"


class AccessDeniedError(DependencyDownError):
    """S3 refuses an object (403, a disabled key, a skewed clock). Never the same as gone: without
    the permission to list, S3 answers 403 for missing keys as well."""

    default_code = "access_denied"


class BucketDownError(DependencyDownError):
    """One source bucket does not answer, or refuses everything; others may be well."""

    default_code = "bucket_down"

    def __init__(self, bucket: str, message: str = "") -> None:
        super().__init__(message or f"bucket {bucket} does not respond")
        self.bucket = bucket


class OtherSpaceError(DependencyDownError):
    """A message is wanted by consumers of another embedding space: it waits for them."""


class LoginRefusedError(DependencyDownError):
    """PostgreSQL has refused our login for minutes. A password or token that the process got when
    it started may have been rotated since; only a new process gets the new one."""

    default_code = "login_refused"


class DeviceLostError(DependencyDownError):
    """The accelerator fails, or has no room for one image. Says nothing about any image; a CUDA
    context that has failed once never works again, so waiting in this process does not help."""

    default_code = "device_lost"


class UserError(PixsiftError):
    """A mistake in a setting, argument or request; the message names it."""


class SettingError(UserError):
    """A setting, a package or the machine is not as it must be."""

    default_code = "wrong_setting"


class NotFoundError(UserError):
    """The named thing does not exist."""

    default_code = "not_found"


class ConflictError(UserError):
    """The named thing exists, but its state does not allow this now."""

    default_code = "conflict"


class RequestError(UserError):
    """The request itself is wrong: a value, a file, a combination."""

    default_code = "bad_request"
