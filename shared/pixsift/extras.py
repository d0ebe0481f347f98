"""Optional packages: an error names the extra that installs a missing one."""

from collections.abc import Sequence
from importlib.util import find_spec

from pixsift.errors import Remedy, SettingError


def require(what: str, packages: Sequence[str], *, extra: str) -> None:
    """Return if every package can be imported; raise a SettingError that names the extra
    otherwise."""
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        raise SettingError(
            f"{what} needs {', '.join(missing)}, which {_are(missing)} not installed",
            code="extra_missing",
            remedy=Remedy("install_extra", {"extra": extra}),
        )


def _are(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"
