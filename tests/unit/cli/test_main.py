"""The table of commands against the modules, and how light the list of commands is."""

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pixsift_cli import main as cli
from pixsift_cli.common import short_uris

PACKAGE = Path(cli.__file__).parent
MODULES = sorted({module for module, _ in cli.COMMANDS.values()})


@pytest.mark.parametrize("module", MODULES)
def test_commands__the_table_is_what_the_modules_register(module: str) -> None:
    registered = cli.load_module(module)
    assert set(registered) == {name for name, (m, _) in cli.COMMANDS.items() if m == module}
    for name, command in registered.items():
        assert cli.COMMANDS[name][1] == command.get_short_help_str(limit=200).replace('"', "'")


def test_commands__every_module_that_registers_some_is_in_the_table() -> None:
    registering = {
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        for path in PACKAGE.rglob("*.py")
        if path.name != "main.py" and "\ndef register(" in path.read_text("utf-8")
    }
    assert registering == set(MODULES)


def test_help__lists_every_command_and_loads_none() -> None:
    code = (
        "import sys\nfrom pixsift_cli.main import main\n"
        "sys.argv[1:] = ['--help']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'numpy', 'boto3', 'psycopg', 'pydantic', 'torch', 'PIL'} & set(sys.modules)\n"
        "loaded = [m for m in sys.modules if m.startswith('pixsift.adapters')]\n"
        "assert not heavy and not loaded, (heavy, loaded)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False,
        env={"PYTHONPATH": ":".join(sys.path), "COLUMNS": "200"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for name, (_, line) in cli.COMMANDS.items():
        assert name in done.stdout and " ".join(line.split()) in " ".join(done.stdout.split())


def test_help__of_a_command_is_its_own() -> None:
    found = CliRunner().invoke(cli.app, ["snapshot", "request", "--help"])
    assert found.exit_code == 0 and "--wait" in found.output


def test_command__an_unknown_one_is_a_mistake() -> None:
    found = CliRunner().invoke(cli.app, ["snapshots"])
    assert found.exit_code == 2 and "snapshots" in found.output


@pytest.mark.parametrize("name", ["attributes", "collection", "dlq", "snapshot"])
def test_help__no_summary_of_a_subcommand_is_cut(name: str) -> None:
    found = CliRunner().invoke(cli.app, [name, "--help"])
    listed = found.output.split("Commands:")[1].splitlines()
    assert [line for line in listed if line.endswith("...")] == []


def test_short_uris__keep_version_ids_where_a_key_has_several() -> None:
    uris = [f"s3://raw/{key}?versionId={version}" for key, version in ("a1", "b1", "a2")]
    assert short_uris(uris) == [uris[0], "s3://raw/b", uris[2]]
