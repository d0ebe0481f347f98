"""The options that ``select`` and ``snapshot request`` share: every field of a request."""

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

from pixsift.errors import RequestError

Changes = dict[str, Any]
Texts = list[str] | None


def with_selection_options(command: Callable[..., None]) -> Callable[..., None]:
    """Adds the options below to a command, which gets them as ``changes``: fields of a request."""
    shared = inspect.signature(selection_changes).parameters.values()
    signature = inspect.signature(command)
    own = [each for each in signature.parameters.values() if each.name != "changes"]

    @functools.wraps(command)
    def run(**given: Any) -> None:
        selection = {each.name: given.pop(each.name) for each in shared}
        command(changes=selection_changes(**selection), **given)

    positional = [each for each in own if each.kind is not each.KEYWORD_ONLY]
    named = [each for each in own if each.kind is each.KEYWORD_ONLY]
    # Typer reads both; ``wraps`` alone would show it the command's own.
    run.__dict__["__signature__"] = signature.replace(parameters=[*positional, *shared, *named])
    run.__annotations__ = {each.name: each.annotation for each in [*positional, *shared, *named]}
    return run


def selection_changes(
    *,
    collection: Annotated[str | None, typer.Option(help="Collection to choose from.")] = None,
    k: Annotated[int | None, typer.Option("--k", "-k", help="Number of images.")] = None,
    at_most: Annotated[
        bool, typer.Option("--at-most", help="Take all candidates if there are fewer than k.")
    ] = False,
    strategy: Annotated[
        str | None,
        typer.Option(
            help="auto, typical, balanced, mixed, k_center, farthest, stratified, similar, random "
            "or all."
        ),
    ] = None,
    purpose: Annotated[
        str | None, typer.Option(help="Of 'auto': training (a model) or rare (scenes).")
    ] = None,
    apart: Annotated[
        float | None,
        typer.Option(help="No two chosen lie nearer than this cosine distance."),
    ] = None,
    prefer: Annotated[
        Texts,
        typer.Option(
            help="Quality metric of which more is better, or metric=strength; may repeat."
        ),
    ] = None,
    emphasize: Annotated[
        str | None,
        typer.Option(
            help="Attribute of numbers, as a model's loss: large ones are stood for more."
        ),
    ] = None,
    novelty: Annotated[
        float | None,
        typer.Option(help="0 to 1: how much what is far from --preselected counts more."),
    ] = None,
    balance: Annotated[
        str | None, typer.Option(help="Attribute whose values should get alike, as far as fits.")
    ] = None,
    exact: Annotated[
        bool | None,
        typer.Option("--exact/--pruned", help="Of 'typical' in pools beyond 10,000 images."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the selection.")] = None,
    by: Annotated[str | None, typer.Option(help="Attribute to stratify by.")] = None,
    share: Annotated[
        str | None, typer.Option(help="Of the strata: equal, proportional or explicit.")
    ] = None,
    count: Annotated[
        Texts, typer.Option(help="stratum=images for share 'explicit'; may be repeated.")
    ] = None,
    cap: Annotated[int | None, typer.Option(help="Most images per stratum.")] = None,
    inside: Annotated[
        str | None,
        typer.Option(
            help="Of 'stratified': typical, balanced, mixed, k_center, farthest, similar, random."
        ),
    ] = None,
    clusters: Annotated[int | None, typer.Option(help="Of 'balanced'; default: root of k.")] = None,
    cluster_share: Annotated[
        str | None, typer.Option(help="Of the clusters of 'balanced': equal, sqrt or proportional.")
    ] = None,
    where: Annotated[Texts, typer.Option(help="attribute=value; may be repeated.")] = None,
    prefix: Annotated[str | None, typer.Option(help="Only keys with this prefix.")] = None,
    captured_after: Annotated[
        str | None, typer.Option(help="Only images captured at or after this time (ISO 8601, UTC).")
    ] = None,
    captured_before: Annotated[
        str | None, typer.Option(help="Only images captured before this time.")
    ] = None,
    quality: Annotated[
        Texts, typer.Option(help="metric=min:max, either limit may be empty; may be repeated.")
    ] = None,
    flagged: Annotated[
        str | None,
        typer.Option(help="Images with a quality flag: exclude (default), include or only."),
    ] = None,
    flag: Annotated[
        Texts, typer.Option(help="Only images with this quality flag; may be repeated.")
    ] = None,
    own_labels: Annotated[
        bool,
        typer.Option(
            "--own-labels", help="Attributes and prefix of the kept image only, not of duplicates."
        ),
    ] = False,
    similar_to: Annotated[
        Texts, typer.Option(help="s3:// URI of a target for strategy 'similar'; may be repeated.")
    ] = None,
    similar_way: Annotated[
        str | None,
        typer.Option(help="Of 'similar': nearest, modes or mean, as in a search."),
    ] = None,
    dissimilar_to: Annotated[
        Texts, typer.Option(help="s3:// URI of a counterexample; may be repeated.")
    ] = None,
    exclude: Annotated[Texts, typer.Option(help="s3:// URI to exclude; may be repeated.")] = None,
    trim_outliers: Annotated[
        float | None, typer.Option(help="Share of the most isolated images to exclude.")
    ] = None,
    protected: Annotated[
        str | None,
        typer.Option(help="Images near an evaluation set: exclude (default) or include."),
    ] = None,
    max_pool: Annotated[
        int | None, typer.Option(help="Choose from at most this many images, drawn at random.")
    ] = None,
    preselected: Annotated[
        str | None, typer.Option(help="Earlier snapshot to extend, by id or name.")
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Shares of train, val and test, as 0.8,0.1,0.1.")
    ] = None,
    group_by: Annotated[
        Texts, typer.Option(help="Attribute whose values must stay in one split.")
    ] = None,
    min_distance: Annotated[
        float | None, typer.Option(help="Pairs nearer than this cosine distance share a split.")
    ] = None,
    at_seq: Annotated[
        int | None, typer.Option(help="State of the collection at this seq; default: now.")
    ] = None,
) -> Changes:
    """Fields of a snapshot request; None, [] or {} where an option was not given.

    Raises UserError for an option that cannot be read.
    """
    return {
        "collection": collection, "at_seq": at_seq,
        "select": {
            "k": k, "at_most": at_most or None, "strategy": strategy, "seed": seed,
            "clusters": clusters, "cluster_share": cluster_share, "similar_to": similar_to,
            "similar_way": similar_way, "dissimilar_to": dissimilar_to, "exclude": exclude,
            "trim_outliers": trim_outliers,
            "protected": protected, "max_pool": max_pool, "preselected_snapshot": preselected,
            "purpose": purpose, "min_distance": apart, "prefer": _preferences(prefer),
            "emphasize": {"attribute": emphasize}, "novelty": novelty,
            "balance": {"by": balance}, "exact": exact,
            "quota": {"by": by, "share": share, "cap": cap, "inside": inside,
                      "counts": _counts(count)},
        },
        "where": {
            "prefix": prefix, "attributes": attribute_conditions(where),
            "quality": _bounds(quality),
            "captured_after": captured_after, "captured_before": captured_before,
            "flagged": flagged, "flags": flag,
            "labels_of_duplicates": False if own_labels else None,
        },
        "split": {**shares(split), "group_by": group_by, "min_distance": min_distance},
    }  # fmt: skip


def named_in(changes: Changes) -> list[str]:
    """The names of collections and objects among the options."""
    select = changes["select"]
    uris = [*(select["similar_to"] or []), *(select["dissimilar_to"] or []),
            *(select["exclude"] or [])]  # fmt: skip
    return [text for text in [changes["collection"], *uris] if text]


def attribute_conditions(where: Texts) -> dict[str, list[str]]:
    """``attribute=value`` options as conditions. Raises RequestError for anything else."""
    found: dict[str, list[str]] = {}
    for condition in where or []:
        name, equals, value = condition.partition("=")
        if not name or not equals:
            raise RequestError(f"--where {condition!r}: write it as attribute=value")
        found.setdefault(name, []).append(value)
    return found


def _preferences(given: Texts) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for text in given or []:
        metric, equals, strength = text.partition("=")
        found.append({"metric": metric} | ({"strength": strength} if equals else {}))
    return found


def _counts(given: Texts) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in given or []:
        # The name of a stratum may contain an equals sign, a number cannot.
        name, equals, images = text.rpartition("=")
        if not equals or not images.isdecimal() or name in found:
            raise RequestError(f"--count {text!r}: write it as stratum=images, once per stratum")
        found[name] = images
    return found


def _bounds(given: Texts) -> dict[str, dict[str, float | None]]:
    found: dict[str, dict[str, float | None]] = {}
    for text in given or []:
        name, equals, bounds = text.partition("=")
        low, colon, high = bounds.partition(":")
        try:
            if not (name and equals and colon and (low or high)) or name in found:
                raise ValueError(text)
            found[name] = {"min": float(low) if low else None,
                           "max": float(high) if high else None}  # fmt: skip
        except ValueError as exc:
            raise RequestError(
                f"--quality {text!r}: write it as metric=min:max, once per metric"
            ) from exc
    return found


def shares(split: str | None) -> dict[str, float]:
    """``0.8,0.1,0.1`` as fields of a request. Raises RequestError for anything else."""
    if split is None:
        return {}
    try:
        train, val, test = (float(share) for share in split.split(","))
    except ValueError as exc:
        raise RequestError(f"--split {split!r}: write three shares, as 0.8,0.1,0.1") from exc
    return {"train": train, "val": val, "test": test}
