"""What the HTTP API answers of the border between kept images and duplicates."""

from pixsift.api import OutcomeName
from pixsift.api import _Answer as Answer


class BorderImage(Answer):
    """One image of a pair."""

    object_id: int
    uri: str
    thumbnail: str | None


class BorderPair(Answer):
    """An image, and the kept one that decides about it."""

    image: BorderImage
    kept: BorderImage
    outcome: OutcomeName
    """Of the image, now."""
    distance: float
    """Cosine distance."""
    change: float | None
    """What has changed between the two, as a share of what counts as a change: at most 1 is none.
    0: no change is looked for. None: they differ by more than a change."""
    place: tuple[float, float] | None
    """Where the two differ most in ``image``: shares of its width and height. None: not known."""
    place_in_kept: tuple[float, float] | None
    """The same place in ``kept``."""


class BorderPairs(Answer):
    """The pairs nearest to the rule's limits, on both sides of them.

    A pair is a near-duplicate where ``distance`` is at most epsilon and ``change`` at most the
    factor on what counts as a change (``RuleAsk.change_limit``).
    """

    collection: str
    at_seq: int
    generation: int
    epsilon: float
    has_change_test: bool
    """Whether a factor on what counts as a change does anything."""
    pairs: list[BorderPair]
    sought_among: int
    """So many of the newest kept images were compared with one another, to find pairs beyond
    epsilon."""
