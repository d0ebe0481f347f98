"""Runs where a peer is installed: what it says of a folder, with its defaults, as JSON.

    python folder_tools.py cleanvision|imagededup|fastdup FOLDER OUT.json WORK

Exit status 3: this interpreter does not have it. Seconds are of the work, not of the import.
"""

import json
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from itertools import combinations
from pathlib import Path
from typing import Any

PROCESSES = 2
Told = dict[str, Any]


def main() -> None:
    tool, folder, out, work = sys.argv[1], *map(Path, sys.argv[2:5])
    try:
        told: Told = {"tool": tool, "version": version(tool)}
    except PackageNotFoundError:
        sys.exit(3)
    told |= {"pairs": [], "flags": {}, "unreadable": []}
    {"cleanvision": cleanvision, "imagededup": imagededup, "fastdup": fastdup}[tool](
        folder, work, told
    )
    out.write_text(json.dumps(told))


def cleanvision(folder: Path, work: Path, told: Told) -> None:
    from cleanvision import Imagelab

    start = time.perf_counter()
    lab = Imagelab(data_path=str(folder), verbose=False)
    lab.find_issues(n_jobs=PROCESSES, verbose=False)
    told["seconds"] = time.perf_counter() - start
    for kind in ("exact_duplicates", "near_duplicates"):
        for group in lab.info.get(kind, {}).get("sets", []):
            told["pairs"] += list(combinations([below(folder, name) for name in group], 2))
    for index, row in lab.issues.iterrows():
        columns = {"dark": "is_dark_issue", "blurred": "is_blurry_issue"}
        flags = [name for name, column in columns.items() if bool(row.get(column))]
        told["flags"][below(folder, str(index))] = flags


def imagededup(folder: Path, work: Path, told: Told) -> None:
    from imagededup.methods import PHash

    start = time.perf_counter()
    method = PHash(verbose=False)
    encoded = method.encode_images(image_dir=folder, recursive=True, num_enc_workers=PROCESSES)
    found = method.find_duplicates(encoding_map=encoded, num_dist_workers=PROCESSES)
    told["seconds"] = time.perf_counter() - start
    told["pairs"] = [[one, other] for one, others in found.items() for other in others]
    files = {below(folder, str(path)) for path in folder.rglob("*") if path.is_file()}
    told["unreadable"] = sorted(files - set(encoded))


def fastdup(folder: Path, work: Path, told: Told) -> None:
    import fastdup as package

    start = time.perf_counter()
    lab = package.create(work_dir=str(work), input_dir=str(folder))
    lab.run(num_threads=PROCESSES, overwrite=True, verbose=False)
    told["seconds"] = time.perf_counter() - start
    similar = lab.similarity()
    for row in similar.itertuples():
        told["pairs"].append([below(folder, row.filename_from), below(folder, row.filename_to)])
    statistics = lab.img_stats()
    for row in statistics.itertuples():
        # The limits of its own documentation: mean below 13, blur below 50.
        flags = (["dark"] if row.mean < 13 else []) + (["blurred"] if row.blur < 50 else [])
        told["flags"][below(folder, row.filename)] = flags
    broken = lab.invalid_instances()
    told["unreadable"] = [below(folder, name) for name in broken["filename"]]


def below(folder: Path, name: str) -> str:
    return str(Path(name).resolve().relative_to(Path(folder).resolve()))


if __name__ == "__main__":
    main()
