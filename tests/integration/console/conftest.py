"""One server, one ledger and one browser for all tests of the console; they leave it as it was."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from console_pages import CHROMIUM
from console_world import ConsoleWorld, served_console
from pixsift.adapters.local.embedded_postgres import EmbeddedPostgres
from pixsift_server.page import STATIC
from server_world import new_database

HERE = Path(__file__).parent
PATIENCE = 90_000
"""Milliseconds, a generous limit: it passes only where something is wrong."""
expect.set_options(timeout=PATIENCE)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where there is no browser, or no console, say so."""
    why = None
    if CHROMIUM is None:
        why = "no chromium: apt-get install chromium"
    elif not (STATIC / "index.html").exists():
        why = "the console is not built: make console"
    for item in items:
        if why is not None and item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.skip(reason=why))


@pytest.fixture(scope="package")
def world(postgres: EmbeddedPostgres, template_database: str) -> Iterator[ConsoleWorld]:
    """One server over one ledger for all tests; they add to it and change nothing."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.delenv("AWS_ENDPOINT_URL", raising=False)
        with new_database(postgres, template_database) as url, served_console(url) as made:
            yield made


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """The machine's own Chromium."""
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def new_page(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Pages that may say nothing on their console, ask no other host and run no foreign script."""
    troubles: list[str] = []
    contexts = []

    def make(**options: Any) -> Page:
        context = browser.new_context(viewport={"width": 1440, "height": 900}, locale="en-US",
                                      timezone_id="UTC", **options)  # fmt: skip
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("console", lambda said: troubles.append(said.text)
                if "Content Security Policy" in said.text else None)  # fmt: skip
        page.on("request", lambda asked: troubles.append(f"asked {asked.url}")
                if "//127.0.0.1:" not in asked.url else None)  # fmt: skip
        return page

    yield make
    for context in contexts:
        context.close()
    assert troubles == []
