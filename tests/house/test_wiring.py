"""Who constructs adapters and reads settings: a process's ``main``, or the ``wiring`` next to
it."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SERVICES = ROOT / "services"
ADAPTERS = r"\b(Database|SqsQueue|S3Objects|FolderUploads|EventBus|ThreadCopier|StreamWriter)\("
SETTINGS = r"\b(?!Export|Collection)\w+Settings\(\)"
MAY = {"wiring.py", "main.py"}


@pytest.mark.parametrize("pattern", [ADAPTERS, SETTINGS, r"\bload_embedder\(", r"\bstatements\("])
def test_services__only_main_and_wiring_construct(pattern: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}: {match.group()}"
        for path in SERVICES.rglob("*.py")
        if path.name not in MAY
        for match in re.finditer(pattern, path.read_text("utf-8"))
    ]
    assert not found, found


def test_errors__a_user_error_is_raised_as_one_of_its_kinds() -> None:
    found = [
        str(path.relative_to(ROOT))
        for folder in ("shared", "services")
        for path in (ROOT / folder).rglob("*.py")
        if re.search(r"(?<!class )\bUserError\(", path.read_text("utf-8"))
    ]
    assert not found, found


def test_errors__no_remedy_of_shared_code_names_a_flag() -> None:
    """An entry point words it: ``pixsift.remedies``, or a server's own words."""
    found = [
        f"{path.relative_to(ROOT)}: {match.group()}"
        for path in (ROOT / "shared" / "pixsift").rglob("*.py")
        if path.name != "remedies.py" and "local" not in path.parts
        for match in re.finditer(r"Error\(\s*f?\"[^\"]*\\s--[a-z]+", path.read_text("utf-8"))
    ]
    assert not found, found
