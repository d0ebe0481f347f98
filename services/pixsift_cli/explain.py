"""``pixsift explain s3://...``: the whole story of an object."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer

from pixsift.core.change import STILL_CELLS
from pixsift.core.files import shown
from pixsift.core.identity import FOLDER
from pixsift.operations.explain import explain as tell
from pixsift.operations.paths import object_named
from pixsift.words import in_words, words_and_code
from pixsift_cli import wiring
from pixsift_cli.common import JsonOption, emit

_SHOWN = ("sharpness", "brightness", "contrast", "entropy_bits")
"""The most useful metrics; findings of checks are in the outcome or the flags."""


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(explain)


def explain(
    uri: Annotated[
        str,
        typer.Argument(
            help="s3://bucket/key, or with ?versionId=...; or a file of a curated folder."
        ),
    ],
    as_json: JsonOption = False,
) -> None:
    """Show what happened to an object, and why: facts, decisions, representative, snapshots."""
    with wiring.database(uri) as database:
        stories = tell(database, object_named(database, uri))
    lines = [line for story in stories for line in ("", *_lines(story.model_dump()))][1:]
    emit(stories, as_json, lines)


def _lines(story: Mapping[str, Any]) -> Iterator[str]:
    yield shown(story["uri"])
    is_file = story["uri"].startswith(FOLDER)
    yield from _facts(story["object"], is_file=is_file)
    for chapter in story["collections"]:
        yield ""
        yield from _chapter(chapter, again="the next run" if is_file else "the queue")
    for snapshot in story["snapshots"]:
        yield (
            f"  snapshot        {snapshot['snapshot_id']} ({snapshot['name']}, "
            f"{snapshot['state']}): {snapshot['copy_state']} as {snapshot['destination_key']}, "
            f"rank {snapshot['rank']}, {snapshot['split']}"
        )
    if not story["snapshots"]:
        yield "  snapshots       in no snapshot"


def _facts(version: Mapping[str, Any], *, is_file: bool) -> Iterator[str]:
    if version["erased_at"]:
        yield f"  erased          {version['erased_at']:%Y-%m-%d %H:%M:%S %Z}: its data was deleted"
        return
    image = version["image_facts"] or {}
    if image:
        yield (
            f"  image           {image.get('format')} {image.get('width')} x "
            f"{image.get('height')} ({image.get('mode')})"
            + (f", flags: {', '.join(image['flags'])}" if image.get("flags") else "")
        )
    etag = "" if is_file else f", ETag {version['etag']}"
    yield f"  size            {version['size_bytes']} bytes{etag}"
    yield f"  arrived         {version['first_seen_at']:%Y-%m-%d %H:%M:%S %Z}"
    if version["captured_at"]:
        yield f"  captured        {version['captured_at']:%Y-%m-%d %H:%M:%S %Z}"
    elif version["stored_at"]:
        yield (
            f"  captured        unknown; stored at {version['stored_at']:%Y-%m-%d %H:%M:%S %Z}, "
            "and this time is used instead"
        )
    if version["quality"]:
        listed = ", ".join(
            f"{name} {version['quality'][name]:.3g}"
            for name in _SHOWN
            if name in version["quality"]
        )
        yield f"  quality         {listed} (--json has all {len(version['quality'])} metrics)"
    if version["content_sha256"]:
        yield f"  content sha256  {version['content_sha256']}"
    if version["thumbnail_key"]:
        yield f"  thumbnail       {version['thumbnail_key']}"


def _chapter(chapter: Mapping[str, Any], *, again: str) -> Iterator[str]:
    rule = chapter["rule"]
    look = ", second look" if rule["second_look"] else ""
    yield (
        f"  collection {chapter['collection']} (model {rule['model']}, epsilon "
        f"{rule['epsilon']:g}{look}, generation {rule['generation']})"
    )
    outcome = chapter["outcome"] or f"undecided: its decision was undone, {again} decides it again"
    yield f"  outcome         {outcome}{_because(chapter['reason'])}"
    if chapter["message"]:
        yield f"  because         {chapter['message']}"
    if chapter["flags"]:
        yield f"  flags           {', '.join(words_and_code(flag) for flag in chapter['flags'])}"
    for ruling in chapter["rulings"]:
        yield f"  ruling          {_ruling_text(ruling)}"
    yield from _proof(chapter)
    yield from _near_miss(chapter["near_miss"])
    if chapter["stands_for"]["count"]:
        yield f"  represents      {chapter['stands_for']['count']} duplicates, the nearest:"
        for child in chapter["stands_for"]["nearest"]:
            yield f"                  {child['distance']:.4f}  {shown(child['uri'])}"
    if chapter["attributes"]:
        listed = ", ".join(f"{name}={value}" for name, value in chapter["attributes"].items())
        yield f"  attributes      {listed}"
    for row in chapter["history"]:
        until = "now" if row["valid_to_seq"] is None else f"seq {row['valid_to_seq']}"
        of = f" of {shown(row['representative'])}" if row["representative"] else ""
        yield (
            f"  history         generation {row['generation']}, seq {row['valid_from_seq']} to "
            f"{until}: {row['outcome']}, {in_words(row['reason'])}{of}, "
            f"{row['decided_at']:%Y-%m-%d %H:%M}"
        )


def _proof(chapter: Mapping[str, Any]) -> Iterator[str]:
    proof = chapter["proof"]
    if proof is None:
        return
    yield f"  representative  {shown(chapter['representative'])}"
    if proof["recomputed_distance"] is None:
        yield "  distance        cannot be recomputed: a vector is missing"
        return
    verdict = "they match" if proof["verifies"] else "THEY DIFFER: run 'pixsift audit'"
    yield (
        f"  distance        {proof['stored_distance']:.6f} stored, "
        f"{proof['recomputed_distance']:.6f} recomputed from the stored vectors: {verdict}"
    )
    yield from _look(proof["second_look"])


def _near_miss(missed: Mapping[str, Any] | None) -> Iterator[str]:
    if missed is None:
        return
    yield f"  nearest kept    {shown(missed['uri'])}"
    yield f"  distance        {missed['stored_distance']:.6f}, and not the same picture:"
    yield from _look(missed["second_look"])


def _look(look: Mapping[str, Any] | None) -> Iterator[str]:
    if look and look["signals"]:
        listed = ", ".join(f"{name} {value:.3g}" for name, value in look["signals"].items())
        verb = "agrees" if look["agrees"] else "disagrees"
        yield f"  second look     {verb} (score {look['score']:+.3f}): {listed}"
        if change := look.get("change"):
            yield f"  change          {_change_text(change)}"
    elif look:
        yield f"  second look     {look['why']}: decided by the embedding alone"


def _ruling_text(ruling: Mapping[str, Any]) -> str:
    other = f" {shown(ruling['uri'])} and {shown(ruling['other'])}" if ruling["other"] else ""
    ended = "" if ruling["to_seq"] is None else f", taken back at seq {ruling['to_seq']}"
    return (
        f"{ruling['kind']}{other}, {ruling['who']}, {ruling['said_at']:%Y-%m-%d %H:%M}: "
        f"{ruling['why']}{ended}"
    )


def _change_text(change: Mapping[str, Any]) -> str:
    """How much the largest change stands out, and where in both frames."""
    here, there = (
        "{:.0%} from the left, {:.0%} from the top".format(*change[at])
        for at in ("place", "place_in_other")
    )
    limits = change["limits"]
    moved = change["motion_cells"] > STILL_CELLS
    names = ("moving",) if moved else ("small", "large", "peak")
    measured = ", ".join(f"{name} {change[name]:.2f} of {limits[name]:g}" for name in names)
    verdict = "changed" if change["changed"] else "nothing stands out"
    unused = "" if change["counts"] else "; the rule does not ask"
    return f"{verdict}: {measured}; most at {here}; in the other at {there}{unused}"


def _because(reason: str | None) -> str:
    if reason is None:
        return ""
    return f": {words_and_code(reason)}"
