"""Copies against look-alikes: embedding alone, perceptual hash alone, embedding + second look.

Every rule judges the same pairs of the real images; for each the strictness is chosen that finds
most copies while precision stays at 0.99 or more, over all distinct pairs. In addition, what the
second look costs per image and per pair. Peer: the 64-bit DCT hash under a Hamming threshold, the
rule that imagededup (10 bits) and CleanVision (0 bits) apply. To its favor, distinct pairs far
apart for the embedding are never counted against it.
"""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.report import publish, table, timed
from pixsift.adapters.calibration.calibrations import default_calibration
from pixsift.adapters.calibration.labeled_pairs import (
    NEAR,
    Frame,
    Laboratory,
    Measured,
    frames_of,
    label_pairs,
    list_pictures,
    recolor_report,
)
from pixsift.adapters.decode.pool import DecoderPool
from pixsift.adapters.models.load import load_embedder
from pixsift.core.calibration import CurvePoint, curve
from pixsift.core.second_look import ANY_CHROMA, LookRule, compare, look_signals

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
EDITED, SEQUENCE_GAP, PRECISION = 40, 200, 0.99
EPSILONS = tuple(0.005 * step for step in range(1, round(NEAR / 0.005) + 1))
EVERYTHING = LookRule(bias=1e9, max_hash_bits=64, max_chroma=ANY_CHROMA)
HASH_BITS = (0, 2, 4, 6, 8, 10, 12, 14)


def main() -> dict[str, Any]:
    """Measure, print and store."""
    if not DATA.is_dir():
        sys.exit(f"no real images: {DATA} is absent")
    singles = list_pictures(DATA / "photos")
    sequences = list_pictures(DATA / "sequences")
    frames = [None] * len(singles) + frames_of(sequences, DATA / "sequences")
    embedder = load_embedder("efficientnet-lite0", device="cpu")
    with DecoderPool(embedder.input_side) as decoder:
        measured = _measure(Laboratory(embedder, decoder), singles + sequences)
    shipped = default_calibration(embedder.space)
    rows = _rules(measured, frames, shipped.epsilon)
    costs = _costs(measured)
    figures = {"rules": rows, "costs": costs, "shipped_epsilon": shipped.epsilon}
    text = table(
        ("rule", "strictness", "precision", "recall", "wrong pairs", "recolored taken for copies"),
        [list(row.values()) for row in rows],
    )
    publish("thresholds", figures, text + "\n\n" + table(("cost", "ms"), list(costs.items())))
    return figures


def _measure(laboratory: Laboratory, paths: list[Path]) -> Measured:
    step = len(paths) // EDITED
    for index, path in enumerate(paths):
        laboratory.add(index, path, edit=index % step == 0)
    return laboratory.finish()


def _rules(measured: Measured, frames: list[Frame | None], shipped: float) -> list[dict[str, Any]]:
    rule = LookRule()
    looked = label_pairs(measured, rule, frames=frames, sequence_gap=SEQUENCE_GAP)
    alone, both = (_best(curve(looked, EPSILONS, second_look=look)) for look in (False, True))
    rows = [
        _row("embedding alone", "epsilon", alone) | _recolored(measured, EVERYTHING, alone),
        _row("embedding + second look", "epsilon", both) | _recolored(measured, rule, both),
    ]
    chosen = curve(looked, [shipped], second_look=True)[0]
    rows.append(
        _row("the same, as shipped", "epsilon", chosen) | _recolored(measured, rule, chosen)
    )
    by_bits = []
    for bits in HASH_BITS:
        rule = replace(EVERYTHING, max_hash_bits=bits)  # the hash alone
        pairs = label_pairs(measured, rule, frames=frames, sequence_gap=SEQUENCE_GAP)
        point = curve(pairs, [NEAR], second_look=True)[0]
        by_bits.append((bits, point))
        if bits == 10:
            rows.append(
                _row("hash alone, imagededup's default", "10 bits", point)
                | _recolored(measured, rule, point)
            )
    sound = [(point.recall, bits, point) for bits, point in by_bits if point.precision >= PRECISION]
    if sound:
        _, bits, point = max(sound, key=lambda entry: entry[:2])
        rows.append(
            _row("hash alone, at its best", f"{bits} bits", point)
            | _recolored(measured, replace(EVERYTHING, max_hash_bits=bits), point)
        )
    return rows


def _recolored(measured: Measured, rule: LookRule, point: CurvePoint) -> dict[str, str]:
    """Pictures with turned hues that the rule takes for copies."""
    report = recolor_report(measured, rule, point.epsilon)
    return {"recolored": ", ".join(f"{row['duplicates']:.0%}" for row in report)}


def _best(points: list[CurvePoint]) -> CurvePoint:
    return max((p for p in points if p.precision >= PRECISION), key=lambda p: p.recall)


def _row(name: str, unit: str, point: CurvePoint) -> dict[str, Any]:
    strictness = f"{point.epsilon:.3f}" if unit == "epsilon" else unit
    return {
        "rule": name,
        "strictness": strictness,
        "precision": round(point.precision, 4),
        "recall": round(point.recall, 4),
        "wrong": point.wrong,
    }


def _costs(measured: Measured) -> dict[str, float]:
    image = measured.inputs[0]
    a, b = measured.looks[0], measured.looks[1]
    near = next(
        look
        for look, (picture, kind, _) in zip(measured.looks, measured.labels, strict=True)
        if picture == 0 and kind == "exposure"
    )
    return {
        "signals of one image": 1e3 * timed(lambda: look_signals(image), runs=50).median,
        "a pair that agrees": 1e3 * timed(lambda: compare(a, near), runs=50).median,
        "a pair refused by its hashes": 1e3
        * timed(lambda: LookRule(max_hash_bits=-1).agrees(0.1, a, b), runs=50).median,
    }


if __name__ == "__main__":
    main()
