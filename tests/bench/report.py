"""How every benchmark times and tells: medians with spread, ratios, one JSON file per topic."""

import json
import os
import platform
import resource
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parents[2] / "bench-results"


@dataclass(frozen=True, slots=True)
class Timing:
    """Wall seconds of several runs, and the CPU seconds of this process in the median run."""

    median: float
    fastest: float
    slowest: float
    cpu: float
    runs: int


def timed(work: Callable[[], Any], *, runs: int = 5, warmup: int = 1) -> Timing:
    """Time ``work``; the median is the figure, fastest and slowest are the spread."""
    return interleaved({"it": work}, runs=runs, warmup=warmup)["it"]


def interleaved(
    works: dict[str, Callable[[], Any]], *, runs: int = 5, warmup: int = 1
) -> dict[str, Timing]:
    """Time several pieces of work in turn (A B A B ...), so that a drifting machine hits all."""
    samples: dict[str, list[tuple[float, float]]] = {name: [] for name in works}
    for run in range(runs + warmup):
        for name, work in works.items():
            wall, cpu = time.perf_counter(), time.process_time()
            work()
            if run >= warmup:
                samples[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    return {name: _summary(values) for name, values in samples.items()}


def peak_memory_bytes() -> int:
    """Largest resident set of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(_cell(value) for value in line) + " |" for line in lines)


def publish(topic: str, figures: dict[str, Any], text: str) -> None:
    """Print the table and write the figures with their conditions to ``bench-results``."""
    RESULTS.mkdir(exist_ok=True)
    facts = {"topic": topic, "conditions": conditions(), "figures": _plain(figures)}
    (RESULTS / f"{topic}.json").write_text(json.dumps(facts, indent=2) + "\n")
    (RESULTS / f"{topic}.md").write_text(f"# {topic}\n\n{text}\n")
    print(f"\n# {topic}\n\n{text}\n", flush=True)  # noqa: T201 - a benchmark talks to people


def conditions() -> dict[str, Any]:
    """What a figure must travel with."""
    return {
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "threads": {name: os.environ[name] for name in ("OMP_NUM_THREADS",) if name in os.environ},
        "load_average": os.getloadavg()[0],
    }


def _summary(samples: list[tuple[float, float]]) -> Timing:
    ordered = sorted(samples)
    middle = ordered[len(ordered) // 2]
    median = statistics.median(wall for wall, _ in ordered)
    return Timing(median, ordered[0][0], ordered[-1][0], middle[1], len(ordered))


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _plain(value: Any) -> Any:
    if isinstance(value, Timing):
        return asdict(value)
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return value
