"""``pixsift cost``."""

import typer

from pixsift.answers.deployment import CostReport
from pixsift.core.cost import PRICES_AS_OF, Estimate, estimate
from pixsift_cli.common import JsonOption, emit


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(cost)


def cost(
    images_per_day: float = typer.Option(..., min=0, max=1e12, help="Images that arrive a day."),
    megapixels: float = typer.Option(0.2, min=0, max=1e6, help="Of one image."),
    kept_months: float = typer.Option(
        1.0, min=0, max=1200, help="Storage as it is after so many months."
    ),
    as_json: JsonOption = False,
) -> None:
    """Say what a month on AWS costs, line by line, and what a million images do."""
    found = estimate(images_per_day, megapixels=megapixels, kept_months=kept_months)
    facts = CostReport(
        month=found.month,
        per_million_images=found.per_million,
        prices_as_of=PRICES_AS_OF,
        lines=found.lines,
    )
    emit(facts, as_json, table(found))


def table(found: Estimate) -> list[str]:
    """The lines for people, in dollars."""
    rows = [
        f"{line.name:18} {line.amount:14,.1f} {line.unit:14} ${line.dollars:11,.2f}  {line.source}"
        for line in found.lines
    ]
    return [
        *rows,
        f"{'a month':18} {'':29} ${found.month:11,.2f}",
        f"{'a million images':18} {'':29} ${found.per_million:11,.2f}",
        f"prices: {PRICES_AS_OF}",
    ]  # fmt: skip
