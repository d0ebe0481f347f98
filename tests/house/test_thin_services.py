"""Thin services: outside of ``main`` and ``wiring`` no adapter is called, and none but as a type.

The command, the curator and the server read options or requests, call one operation, and word its
answer. The consumer is not among them: its stages are the arrival path itself.
"""

import ast
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import is_dataclass
from pathlib import Path
from pkgutil import resolve_name

import pytest

SERVICES = Path(__file__).resolve().parents[2] / "services"
THIN = ("pixsift_cli", "pixsift_curator", "pixsift_server")
WIRING = {"main.py", "wiring.py"}


def adapter_classes(service: Path) -> set[str]:
    """Classes of adapters that a service imports anywhere; frozen rows are values, not adapters."""
    return {
        alias.asname or alias.name
        for path in service.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pixsift.adapters")
        for alias in node.names
        if alias.name[0].isupper() and not is_dataclass(resolve_name(f"{node.module}.{alias.name}"))
    }


def adapter_fields(service: Path, classes: set[str]) -> set[str]:
    """Attributes of the service's own classes that hold an adapter, such as ``parts.database``."""
    return {
        item.target.id
        for path in service.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.ClassDef)
        for item in node.body
        if isinstance(item, ast.AnnAssign)
        and isinstance(item.target, ast.Name)
        and names_in(item.annotation) & classes
    }


def makers(service: Path, classes: set[str]) -> set[str]:
    """Functions of ``wiring`` that return an adapter."""
    path = service / "wiring.py"
    if not path.exists():
        return set()
    return {
        node.name
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef) and node.returns and names_in(node.returns) & classes
    }


def names_in(annotation: ast.expr) -> set[str]:
    """Names of an annotation, quoted ones too; ``Callable[..., X]`` is not an X."""
    if isinstance(annotation, ast.Subscript) and "Callable" in ast.dump(annotation.value):
        return set()
    found = {node.id for node in ast.walk(annotation) if isinstance(node, ast.Name)}
    quoted = (node.value for node in ast.walk(annotation) if isinstance(node, ast.Constant))
    for text in quoted:
        if isinstance(text, str):
            with suppress(SyntaxError):  # of Annotated: a description
                found |= names_in(ast.parse(text, mode="eval").body)
    return found


def calls_of_adapters(
    code: str, *, classes: set[str], fields: set[str], made_by: set[str]
) -> Iterator[str]:
    """Each place that reaches into an adapter, or uses an adapter's name but as a type."""
    tree = ast.parse(code)
    annotations = {
        id(part)
        for node in ast.walk(tree)
        for whole in (getattr(node, "annotation", None), getattr(node, "returns", None))
        if isinstance(whole, ast.expr)
        for part in ast.walk(whole)
    }
    imported = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pixsift.adapters")
        for alias in node.names
    }
    held: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.arg | ast.AnnAssign) and node.annotation is not None:
            target = node.arg if isinstance(node, ast.arg) else ast.unparse(node.target)
            if names_in(node.annotation) & classes:
                held.add(target)
    for node in ast.walk(tree):
        made = None
        if isinstance(node, ast.withitem) and node.optional_vars is not None:
            made = (node.optional_vars, node.context_expr)
        elif isinstance(node, ast.Assign):
            made = (node.targets[0], node.value)
        if made is not None and (is_made(made[1], made_by) or ast.unparse(made[1]) in held):
            held.add(ast.unparse(made[0]))
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in imported and id(node) not in annotations:
            yield f"line {node.lineno}: {node.id}"
        if not isinstance(node, ast.Attribute):
            continue
        inner = node.value
        is_field = isinstance(inner, ast.Attribute) and inner.attr in fields
        if ast.unparse(inner) in held or is_made(inner, made_by) or is_field:
            yield f"line {node.lineno}: {ast.unparse(node)}"


def is_made(node: ast.expr, made_by: set[str]) -> bool:
    """Whether it is ``wiring.database()`` or another maker's call."""
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and ast.unparse(node.func.value) == "wiring"
        and node.func.attr in made_by
    )


@pytest.mark.parametrize("name", THIN)
def test_thin_services__call_operations_not_adapters(name: str) -> None:
    service = SERVICES / name
    if not service.exists():
        pytest.skip(f"{name} is not there")
    classes = adapter_classes(service)
    fields, made_by = adapter_fields(service, classes), makers(service, classes)
    found = [
        f"{path.relative_to(SERVICES)}, {place}"
        for path in sorted(service.rglob("*.py"))
        if path.name not in WIRING
        for place in calls_of_adapters(
            path.read_text("utf-8"), classes=classes, fields=fields, made_by=made_by
        )
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("code", "is_found"),
    [
        ("def f(d: Database) -> None:\n    show(d)", False),
        ("def f(d: Database) -> None:\n    d.connection()", True),
        ("with wiring.database() as d:\n    show(d)", False),
        ("with wiring.database() as d:\n    d.connection()", True),
        ("wiring.database().connection()", True),
        ("show(wiring.database())", False),
        ("class C:\n    def __init__(self, d: Database) -> None:\n        self._d = d\n"
         "    def f(self) -> None:\n        self._d.close()", True),
        ("parts.database.connection()", True),
        ("show(parts.database)", False),
        ("from pixsift.adapters.postgres.database import Database\nx = Database('url')", True),
        ("from pixsift.adapters.postgres.database import Database\n"
         "def f(d: Database) -> None: ...", False),
        ("from pixsift.adapters.ledger.pool import object_uris\nobject_uris(1)", True),
        ('def f(d: "Database | None") -> None:\n    d.close()', True),
    ],
)  # fmt: skip
def test_thin_services__the_check_finds_calls(code: str, is_found: bool) -> None:
    found = calls_of_adapters(code, classes={"Database"}, fields={"database"}, made_by={"database"})
    assert bool(list(found)) == is_found
