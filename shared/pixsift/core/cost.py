"""Estimates a month on AWS: units per image (measured or calculated) times a dated price.

Pure arithmetic. Prices are list prices of us-east-1 as remembered in November 2026, not fetched:
other prices can be given. Data leaving AWS, support and other regions are not counted.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

PRICES_AS_OF: Final = "2026-11, us-east-1 list prices from memory: check them"
PRICES: Final[Mapping[str, float]] = {
    "s3_get_per_thousand": 0.0004,
    "s3_put_per_thousand": 0.005,
    "s3_gb_month": 0.023,
    "sqs_per_million": 0.40,
    "gpu_hour": 0.752,
    "database_gb_month": 0.115,
    "database_month": 55.0,
    "nat_month": 33.0,
    "alarms_month": 3.0,
}
"""Dollars; gpu_hour is a g4dn.2xlarge on demand, database_month a db.t4g.medium in one zone."""
DAYS: Final = 30.4
_CPU_MS_PER_MEGAPIXEL: Final = 53.5
"""10.7 ms per image of 0.2 megapixels (docs/arrival.md), assumed to grow with the number of
pixels."""
_CPUS: Final = 8
_SQS_CALLS_PER_IMAGE: Final = 0.207 + 1
"""Measured per image (docs/arrival.md), and the message that S3 sends."""
_THUMBNAIL_BYTES: Final = 8_000
_LEDGER_BYTES: Final = 5_400
"""Per object, 90 % embedded at 768 dimensions, indexes included (measured on 200,000)."""
_MIN_MEGAPIXELS: Final = 0.2


@dataclass(frozen=True, slots=True)
class CostLine:
    """One thing that is paid for. amount: units a month; dollars: a month."""

    name: str
    amount: float
    unit: str
    dollars: float
    source: str


@dataclass(frozen=True, slots=True)
class Estimate:
    """A month of a stage that has run for ``kept_months``."""

    lines: tuple[CostLine, ...]
    images: float

    @property
    def month(self) -> float:
        """Dollars."""
        return sum(line.dollars for line in self.lines)

    @property
    def per_million(self) -> float:
        """Dollars per million images, without what is paid for an idle stage."""
        variable = sum(line.dollars for line in self.lines if line.unit != "month")
        return variable / self.images * 1e6 if self.images else 0.0


@dataclass(frozen=True, slots=True)
class CopyCost:
    """What the copies of a snapshot cost, in dollars: once, and for a month of storage."""

    requests: float
    month: float


def copy_cost(copies: int, size_bytes: int, *, prices: Mapping[str, float] = PRICES) -> CopyCost:
    """One request for each copy (up to 5 GB), and the storage of all of them."""
    return CopyCost(
        requests=copies / 1000 * prices["s3_put_per_thousand"],
        month=size_bytes / 1e9 * prices["s3_gb_month"],
    )


def estimate(
    images_per_day: float,
    *,
    megapixels: float = 0.2,
    kept_months: float = 1.0,
    prices: Mapping[str, float] = PRICES,
) -> Estimate:
    """What a month costs; storage as it is after ``kept_months`` of the same.

    Raises ValueError for a negative figure or one that is not finite.
    """
    for name, value in (("images_per_day", images_per_day), ("megapixels", megapixels),
                        ("kept_months", kept_months)):  # fmt: skip
        if not 0 <= value < 1e12:
            raise ValueError(f"{name} must be from 0 to 1e12, not {value}")
    images = images_per_day * DAYS
    stored = images * kept_months
    cpu_ms = _CPU_MS_PER_MEGAPIXEL * max(megapixels, _MIN_MEGAPIXELS)
    hours = images * cpu_ms / 1000 / _CPUS / 3600
    rows = (
        ("read objects", images / 1000, "1,000 GET", "s3_get_per_thousand", "one GET an image"),
        ("write thumbnails", images / 1000, "1,000 PUT", "s3_put_per_thousand", "one PUT an image"),
        ("queue", images * _SQS_CALLS_PER_IMAGE / 1e6, "million calls", "sqs_per_million",
         "measured calls an image"),
        ("judge", hours, "GPU hours", "gpu_hour", "measured CPU ms an image on 8 vCPU"),
        ("thumbnails", stored * _THUMBNAIL_BYTES / 1e9, "GB", "s3_gb_month", "8 kB each"),
        ("ledger", stored * _LEDGER_BYTES / 1e9, "GB", "database_gb_month", "5.4 kB an object"),
        ("database", 1.0, "month", "database_month", "idle or not"),
        ("way out", 1.0, "month", "nat_month", "idle or not"),
        ("alarms", 1.0, "month", "alarms_month", "idle or not"),
    )  # fmt: skip
    lines = (
        CostLine(name, amount, unit, amount * prices[price], source)
        for name, amount, unit, price, source in rows
    )
    return Estimate(tuple(lines), images)
