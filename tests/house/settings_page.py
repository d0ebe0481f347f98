"""Writes docs/settings.md from the descriptions in pixsift.config: run it after a change there.

python tests/house/settings_page.py
"""

import inspect
from pathlib import Path

from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

from pixsift import config

HEAD = """# Settings

Environment variables, read once when a process starts. Configure AWS access with the
standard variables (`AWS_ENDPOINT_URL`, `AWS_REGION`, `AWS_ACCESS_KEY_ID`, ...). This page is
generated from `shared/pixsift/config.py` by `tests/house/settings_page.py`; a test compares them.
"""


def page() -> str:
    """The whole page as Markdown."""
    parts = [HEAD]
    for _, settings in inspect.getmembers(config, inspect.isclass):
        if not issubclass(settings, BaseSettings) or settings.__module__ != config.__name__:
            continue
        own = {n: f for n, f in settings.model_fields.items() if n in settings.__annotations__}
        if own:
            parts.append(f"## {settings.__name__}\n\n{inspect.getdoc(settings)}\n")
            parts.append("| variable | default | what it is |\n| --- | --- | --- |")
            parts += [
                f"| `PIXSIFT_{n.upper()}` | {_default(f)} | {f.description} |"
                for n, f in own.items()
            ]
            parts.append("")
    return "\n".join(parts)


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)
    text = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
    return f"`{text}`" if text else "(empty)"


if __name__ == "__main__":
    (Path(__file__).resolve().parents[2] / "docs" / "settings.md").write_text(page(), "utf-8")
