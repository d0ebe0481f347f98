"""The house rules that a machine can check: layout, settings, queries, forbidden ways."""

import ast
import inspect
import io
import re
import tokenize
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from pathlib import Path
from pkgutil import resolve_name

import pytest
from pydantic_settings import BaseSettings

from house import settings_page
from pixsift import config
from pixsift.sql import statements
from pixsift_cli.main import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
PRODUCT = [ROOT / "shared", ROOT / "services"]


def sources() -> Iterator[Path]:
    for folder in PRODUCT:
        yield from folder.rglob("*.py")


def settings_classes() -> list[type[BaseSettings]]:
    return [
        value
        for _, value in inspect.getmembers(config, inspect.isclass)
        if issubclass(value, BaseSettings) and value.__module__ == config.__name__
    ]


def test_layout__the_three_roots_are_not_packages() -> None:
    for folder in ("shared", "services", "tests"):
        assert not (ROOT / folder / "__init__.py").exists()


def test_settings__every_field_is_described() -> None:
    for settings in settings_classes():
        for name, field in settings.model_fields.items():
            assert field.description, f"{settings.__name__}.{name} has no description"


def test_settings__the_page_is_up_to_date() -> None:
    written = (ROOT / "docs" / "settings.md").read_text("utf-8")
    assert written == settings_page.page(), "run: python tests/house/settings_page.py"


def test_settings__classes_are_frozen() -> None:
    assert all(settings.model_config.get("frozen") for settings in settings_classes())


def test_sql__every_named_statement_is_used_and_introduced() -> None:
    code = [path.read_text("utf-8") for path in sources()]
    for entry in files("pixsift.sql").iterdir():
        if not entry.name.endswith(".sql"):
            continue
        file = entry.name.removesuffix(".sql")
        loading = "\n".join(text for text in code if f'statements("{file}")' in text)
        for name, body in statements(file).items():
            assert body.startswith("--"), f"{entry.name}: {name} has no line on why"
            assert f'"{name}"' in loading, f"{entry.name}: {name} is used nowhere"


ONE_WRITER = {
    r"INSERT INTO decision\b": 1,
    r"INSERT INTO representative\b": 1,
    r"UPDATE decision\b[^;]*?SET valid_to_seq\b": 1,
    r"UPDATE representative\b[^;]*?SET valid_to_seq\b": 1,
    r"UPDATE collection\b[^;]*?SET seq\b": 1,
    r"FROM collection\b[^;]*?FOR (NO KEY )?UPDATE": 1,
    r"INSERT INTO turn\b": 2,  # the second one comes with the collection
    r"ORDER BY[^;]*?sharpness": 0,  # see redecide_order
}


@pytest.mark.parametrize("pattern", ONE_WRITER)
def test_sql__the_history_has_one_writer(pattern: str) -> None:
    found = [
        f"{entry.name}: {name}"
        for entry in files("pixsift.sql").iterdir()
        if entry.name.endswith(".sql")
        for name, body in statements(entry.name.removesuffix(".sql")).items()
        if re.search(pattern, re.sub(r"--.*", "", body))
    ]
    assert len(found) == ONE_WRITER[pattern], found
    assert all(name.startswith("history") or "insert_collection" in name for name in found), found


def test_sql__other_files_write_no_history() -> None:
    written = r"(INSERT INTO|UPDATE|DELETE FROM) (decision|representative|attribute|turn)\b"
    for entry in files("pixsift.sql").iterdir():
        if entry.name.endswith(".sql") and entry.name not in ("history.sql", "collections.sql"):
            assert not re.search(written, entry.read_text("utf-8")), entry.name
    code = "\n".join(path.read_text("utf-8") for path in sources())
    assert not re.search(written, code), "SQL in the code"


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        (r"LOAD_TRUNCATED_IMAGES\s*=", "a truncated image would pass as whole"),
        (r"\bcv2\.im(read|decode)", "a second parser of untrusted bytes"),
        (r"\bpickle\.loads?\(", "pickle runs code"),
        (r"trust_remote_code\s*=\s*True", "model files must not run code"),
        (r"weights_only\s*=\s*False", "model files must not run code"),
        (r"^\s*print\(", "services log, the command echoes"),
        (r"/(work|home|root)/", "no machine's paths"),
    ],
)
def test_forbidden_ways(pattern: str, why: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}: {match.group()}"
        for path in sources()
        for match in re.finditer(pattern, path.read_text("utf-8"), re.M)
    ]
    assert not found, f"{why}: {found}"


def test_scripts__resolve() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    for target in project["scripts"].values():
        assert callable(resolve_name(target))


def test_adr__numbers_are_their_own_and_sections_are_there() -> None:
    pages = sorted((ROOT / "docs" / "adr").glob("[0-9]*.md"))
    numbers = [page.name[:4] for page in pages]
    assert len(set(numbers)) == len(numbers)
    for page in pages:
        text = page.read_text("utf-8")
        assert re.search(r"status", text, re.I) and re.search(r"decision", text, re.I), page.name


def test_docs__links_between_pages_lead_somewhere() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", page.read_text("utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target} is missing"


def test_readme__figures_are_those_of_the_pages() -> None:
    """A figure has one place; the README repeats it from the page of its row."""
    rows = re.findall(
        r"^\| [^|]+ \| ([^|]+ \| [^|]+) \| \[\w+\]\((docs/\w+\.md)\) \|$",
        (ROOT / "README.md").read_text("utf-8"), re.M,
    )  # fmt: skip
    assert len(rows) >= 11
    number = re.compile(r"(?<![\w.,])\d[\d,]*(?:\.\d+)?")
    for figures, page in rows:
        known = set(number.findall((ROOT / page).read_text("utf-8")))
        assert set(number.findall(figures)) <= known, f"{page}: {figures}"


def test_docs__tests_named_as_proof_exist() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    code = "\n".join(path.read_text("utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    names = re.findall(r"`(test_\w+)`", text)
    assert names and all(f"def {name}(" in code for name in names)
    assert all((ROOT / path).is_file() for path in re.findall(r"`(tests/[\w/]+\.py)`", text))


def test_docs__files_and_functions_named_in_the_flow_exist() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8").split("## The ledger")[0]
    code = {path: path.read_text("utf-8") for path in sources()}
    for name in re.findall(r"`([\w./]+)`", text):
        if name.endswith(".py"):
            assert any(path.match(name) for path in code), name
        elif "." in name and name != "snapshot.json":  # an object in S3
            assert is_defined(name, code), name
        else:
            assert any(re.search(rf"\b{Path(name).name}\b", c) for c in code.values()), name


@pytest.mark.parametrize(
    "page",
    [ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))],
    ids=lambda page: page.name,
)
def test_docs__files_and_functions_named_on_any_page_exist(page: Path) -> None:
    """Dotted names that begin with a package or a class of ours, and Python files."""
    code = {path: path.read_text("utf-8") for path in sources()}
    classes = set(re.findall(r"^class (\w+)", "\n".join(code.values()), re.M))
    packages = {"core", "adapters", "operations"}
    files = [path for folder in ("shared", "services", "infra", "tests")
             for path in (ROOT / folder).rglob("*.py")]  # fmt: skip
    for name in re.findall(r"`([A-Za-z_]\w*(?:[./]\w+)+)(?:\(\))?`", page.read_text("utf-8")):
        bare = name.removeprefix("pixsift.")
        if name.endswith(".py"):
            assert any(path.match(name) for path in files), name
        elif name != bare or re.split("[./]", name)[0] in {*packages, *classes}:
            assert is_defined(bare, code), name


@pytest.mark.parametrize("name", ["core.nowhere.judge", "core.quality.nothing", "Ledger.nothing"])
def test_docs__a_function_that_is_not_there_is_noticed(name: str) -> None:
    assert not is_defined(name, {path: path.read_text("utf-8") for path in sources()})


def is_defined(name: str, code: dict[Path, str]) -> bool:
    """Whether ``core.quality.judge`` or ``Ledger.commit`` is a module, class or function of ours.

    code: the text of every source file.
    """
    dotted = name.replace("/", ".")
    owner = dotted.split(".")[0]
    parents = [
        ".".join(path.relative_to(root).with_suffix("").parts)
        for path, text in code.items()
        for root in PRODUCT
        if path.is_relative_to(root) and re.search(rf"^class {owner}\b", text, re.M)
    ]
    for parent in (*parents, "pixsift", "pixsift_consumer", "pixsift_curator"):
        try:
            resolve_name(f"{parent}.{dotted}")
        except (ImportError, AttributeError):
            continue
        return True
    return False


def test_remedies__messages_of_the_product_name_no_flag_and_no_command() -> None:
    """What helps is data (``Remedy``): who answers over HTTP has no flags."""
    words = re.compile(rf"(?<!\w)(?<!var\()--[a-z]|\bpixsift ({'|'.join(COMMANDS)})\b")
    shared = [p for p in (ROOT / "shared").rglob("*.py") if p.name != "remedies.py"]
    found = [
        f"{path.relative_to(ROOT)}: {text}"
        for path in shared
        for text in messages_in(path.read_text("utf-8"))
        if words.search(text)
    ]
    assert not found, found


def test_remedies__the_check_sees_messages_but_no_docstrings_and_no_arguments() -> None:
    code = (
        '"""Run pixsift audit."""\nx = 1\n"""See --json."""\n'
        'raise E(f"{x} is wrong: run pixsift audit --{x}")\nrun(["--locale", "C"])\n'
        'url = Field(description="what pixsift up left running")\n'
    )
    assert messages_in(code) == [" is wrong: run pixsift audit --"]


@cache
def nodes_of(code: str) -> list[ast.AST]:
    """Every node of the syntax tree; kept, since several checks walk all files."""
    return list(ast.walk(ast.parse(code)))


@cache
def messages_in(code: str) -> list[str]:
    """Every text with a space, except docstrings and descriptions of settings."""
    nodes = nodes_of(code)
    skipped = {
        id(part)
        for node in nodes
        for whole in [
            node.value if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            else node.value if isinstance(node, ast.keyword) and node.arg == "description"
            else None
        ]
        if whole is not None
        for part in ast.walk(whole)
    }  # fmt: skip
    texts = [node for node in nodes if isinstance(node, ast.Constant) and id(node) not in skipped]
    return [n.value for n in texts if isinstance(n.value, str) and " " in n.value]


STILTED = re.compile(
    r"(?<!there )\b(?:is|are|was|were) no (?!longer|more|less|lower|higher|other)"
    r"|\b(?:told|heeds?|for ever|mend(?:s|ed)?|whoever|nobody|somebody|beside)\b",
    re.IGNORECASE,
)
"""Turns of phrase that readers stumble over, and that have a plain word: is not a, printed,
respects, forever, fix, who, no process, another process, next to or compared with."""


def test_english__messages_help_and_first_lines_are_plain() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {text}"
        for root in ("shared", "services")
        for path in (ROOT / root).rglob("*.py")
        for text in (*messages_in(path.read_text("utf-8")), *first_lines(path.read_text("utf-8")))
        if STILTED.search(text)
    ]
    assert not found, found


def test_english__comments_and_docstrings_are_plain() -> None:
    stilted = re.compile(rf"{STILTED.pattern}|\b(?:whom|anew|hence)\b|\bspeaks? of\b", re.I)
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line}"
        for root in ("shared", "services", "infra", "tests")
        for path in (*(ROOT / root).rglob("*.py"), *(ROOT / root).rglob("*.sql"))
        if path != Path(__file__) and path.parent.name != "migrations"  # those never change
        for number, line in prose(path)
        if stilted.search(re.sub(r"``nobody``|as nobody", "", line))  # the Unix account
    ]
    assert not found, found


def prose(path: Path) -> Iterator[tuple[int, str]]:
    """Comments, and every line of a docstring, with their line numbers."""
    text = path.read_text("utf-8")
    if path.suffix == ".sql":
        comments = (line.partition("--") for line in text.splitlines())
        yield from ((number, comment) for number, (_, _, comment) in enumerate(comments, 1))
        return
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            lines = str(node.value.value).splitlines()
            yield from enumerate(lines, node.lineno)
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def test_english__pages_are_plain() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    found = [
        f"{page.relative_to(ROOT)}:{number}: {line}"
        for page in pages
        for number, line in enumerate(page.read_text("utf-8").splitlines(), 1)
        if STILTED.search(line)
    ]
    assert not found, found


CONSOLE = ROOT / "services" / "pixsift_server" / "console" / "src"


def test_english__the_console_is_plain() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {text}"
        for kind in ("*.svelte", "*.ts")
        for path in CONSOLE.rglob(kind)
        if "generated" not in path.parts
        for text in shown_by(path.read_text("utf-8"))
        if STILTED.search(text)
    ]
    assert not found, found


def shown_by(component: str) -> Iterator[str]:
    """What a component says: text between tags, strings with a space in them, and comments."""
    script = r"<script\b.*?</script>|<style>.*?</style>"
    code = "\n".join(re.findall(script, component, re.DOTALL)) or component
    markup = re.sub(script, "", component, flags=re.DOTALL)
    for text in re.findall(r"[>}]([^<>{}]+)(?=[<{])", markup):
        yield text.strip()
    for text in re.findall(r'"([^"\n]* [^"\n]*)"|`([^`\n]* [^`\n]*)`', code + markup):
        yield re.sub(r"\$?\{[^{}]*\}", "", "".join(text))
    for pair in re.findall(r"(?<![:\"'`])//(.*)|^ *(?:/\*)?\*+ (.*)", code, re.MULTILINE):
        yield "".join(pair)


def test_english__what_a_component_says_is_found() -> None:
    component = (
        "<script>\n  // a comment\n  const told = `of ${told} images`;\n</script>\n"
        '<p title="a title">Some text {told} more</p><style>.nobody { color: red; }</style>'
    )
    said = [text for text in shown_by(component) if text]
    assert {"Some text", "more", "a title", "of  images"} <= set(said)
    assert " a comment" in said
    assert not any("told" in text or "nobody" in text for text in said)


@pytest.mark.parametrize(
    ("text", "is_stilted"),
    [
        ("'x' is no S3 URI", True),
        ("mend the permission", True),
        ("there is no collection 'x'", False),
        ("the object is no longer in S3", False),
        ("recommended", False),
    ],
)
def test_english__the_list_spares_plain_sentences(text: str, is_stilted: bool) -> None:
    assert bool(STILTED.search(text)) == is_stilted


def first_lines(code: str) -> Iterator[str]:
    """The first line of every docstring, of constants and fields too; settings' descriptions."""
    for node in nodes_of(code):
        text = node.value if isinstance(node, ast.Expr) else None
        if isinstance(node, ast.keyword) and node.arg == "description":
            text = node.value
        if isinstance(text, ast.Constant) and isinstance(text.value, str):
            yield text.value.strip().split("\n")[0]


def test_images__tests_that_need_the_large_set_are_listed() -> None:
    """A public clone skips these; whatever else needs images takes the fixture ``images``."""
    found = {
        node.name
        for path in (ROOT / "tests").rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
        if "real_images" in {argument.arg for argument in node.args.args}
    }
    page = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    assert set(re.findall(r"^- `(test_\w+)`: ", page, re.M)) == found
