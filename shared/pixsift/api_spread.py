"""What the HTTP API answers of how the newest images spread: over values, and over numbers."""

from pixsift.api import _Answer as Answer


class Share(Answer):
    """The newest images with one value of an attribute."""

    value: str | None
    """None: the attribute is missing."""
    outcomes: dict[str, int]
    """Outcome -> images."""


class Spread(Answer):
    """The newest images by an attribute, the value with most of them first."""

    collection: str
    attribute: str
    newest: int
    """Images that were looked at."""
    values: list[Share]


class Bin(Answer):
    """The images whose value is at least ``low`` and below ``high``; the last bin has both ends."""

    low: float
    high: float
    images: int


class Histogram(Answer):
    """A number of the newest images, in bins of equal width."""

    collection: str
    metric: str
    newest: int
    """Images that were looked at; those without the number are in no bin."""
    bins: list[Bin]
