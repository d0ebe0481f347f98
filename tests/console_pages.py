"""What tests of the console share: where screens are, how a page is waited for, what is checked."""

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import Locator, Page
from playwright.sync_api import TimeoutError as NotYet

from console_world import ConsoleWorld
from ledger_world import DIMENSION, unit
from made_images import scene

ROOT = Path(__file__).resolve().parents[1]
AXE = ROOT / "services/pixsift_server/console/node_modules/axe-core/axe.min.js"
SHOTS = ROOT / "build" / "console"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
SCREENS = {
    "live": ("/", "section.kept li"),
    "browse": ("/browse", ".tile"),
    "image": ("/image/DUPLICATE", ".pair img"),
    "review": ("/review", ".pair img"),
    "what-if": ("/what-if?distance=0.03", ".sides img"),
    "search": ("/search?like=DUPLICATE", ".hits img"),
    "builder": ("/snapshots/new?k=8", ".pictures img"),
    "snapshots": ("/snapshots", "table"),
    "snapshot": ("/snapshots/november", ".items img"),
    "queues": ("/operations", ".queues"),
    "not-decided": ("/operations?tab=undecided", "table"),
    "rules": ("/operations?tab=rules", "table"),
    "history": ("/operations?tab=history", "table"),
    "cameras": ("/operations?tab=cameras", "table"),
}


def id_of(world: ConsoleWorld, **condition: str) -> int:
    """Some image with an outcome or a prefix."""
    with world.parts.database.connection() as connection:
        row = connection.execute(
            "SELECT object_id FROM decision JOIN object USING (object_id)"
            " JOIN collection USING (collection_id, generation)"
            " WHERE valid_to_seq IS NULL"
            " AND (%(outcome)s::text IS NULL OR outcome = %(outcome)s AND reason LIKE 'near%%')"
            " AND (%(key)s::text IS NULL OR key = %(key)s) ORDER BY object_id DESC LIMIT 1",
            {"outcome": None, "key": None, **condition},
        ).fetchone()
    assert row is not None
    return int(row[0])


def show(page: Page, world: ConsoleWorld, name: str) -> None:
    """Go to a screen and wait until its pictures are there."""
    path, landmark = SCREENS[name]
    path = path.replace("DUPLICATE", str(id_of(world, outcome="duplicate")))
    page.goto(world.url + path)
    page.wait_for_selector(landmark)
    page.wait_for_function(
        "() => [...document.images].every("
        "i => i.complete || i.getBoundingClientRect().top > innerHeight)"
    )


def serious(page: Page, only: str | None = None) -> list[str]:
    """What axe-core (MPL-2.0; used here only, never shipped) finds, if it matters.

    only: the one rule to ask.
    """
    assert AXE.exists(), "axe-core is missing: make console"
    if not page.evaluate("() => 'axe' in window"):
        page.evaluate(AXE.read_text())
    found = page.evaluate(
        "only => axe.run(document, {resultTypes: ['violations'],"
        " ...(only ? {runOnly: [only]} : {})})",
        only,
    )
    return [
        f"{each['id']}: {each['nodes'][0]['html'][:160]} ({len(each['nodes'])})"
        for each in found["violations"]
        if each["impact"] in ("serious", "critical")
    ]


def press_one_after_the_other(page: Page, keys: str) -> None:
    """Press keys of one sequence within its time limit, however slow the machine is."""
    page.evaluate(
        "keys => keys.forEach(key =>"
        " document.body.dispatchEvent(new KeyboardEvent('keydown', {key, bubbles: true})))",
        keys.split(),
    )


def until(page: Page, shown: Locator, *, jump: int) -> None:
    """Jump ahead on the page's clock, so many milliseconds at a time, until something is shown."""
    for _ in range(120):
        page.clock.fast_forward(jump)
        try:
            shown.wait_for(timeout=1000)
        except NotYet:
            continue
        return
    raise AssertionError(f"not shown: {shown}")


def below(world: ConsoleWorld, path: str) -> Any:
    """A pattern for addresses below a path."""
    return re.compile(re.escape(world.url + path) + ".*")


def arrival(world: ConsoleWorld, name: str) -> None:
    """One more kept image."""
    seed = sum(name.encode())
    vector = unit(*np.random.default_rng(seed).normal(size=DIMENSION))
    picture = scene("coffee.png").resize((96, 72)).rotate(seed % 360)
    world.commit(world.put(f"robot-9/front/{name}.jpg", picture, vector))


def outcome_of(world: ConsoleWorld, object_id: int) -> str:
    """What holds of it now."""
    with world.parts.database.connection() as connection:
        row = connection.execute(
            "SELECT outcome FROM decision JOIN collection USING (collection_id, generation)"
            " WHERE object_id = %s AND valid_to_seq IS NULL",
            (object_id,),
        ).fetchone()
    assert row is not None
    return str(row[0])


def outcomes(world: ConsoleWorld) -> set[tuple[int, str]]:
    """Of every image."""
    with world.parts.database.connection() as connection:
        rows = connection.execute(
            "SELECT object_id, outcome FROM decision"
            " JOIN collection USING (collection_id, generation) WHERE valid_to_seq IS NULL"
        ).fetchall()
    return {(int(row[0]), str(row[1])) for row in rows}
