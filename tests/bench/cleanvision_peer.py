"""Runs in the peers' environment: CleanVision's scores and flags for every image of a folder.

python cleanvision_peer.py FOLDER OUT.json
"""

import json
import sys
import time

CHECKS: dict[str, dict[str, float]] = {"blurry": {}, "dark": {}, "light": {}, "low_information": {}}


def main() -> None:
    """Score and flag per file name, and the seconds it took."""
    from cleanvision import Imagelab

    folder, out = sys.argv[1:3]
    lab = Imagelab(data_path=folder, verbose=False)
    start = time.perf_counter()
    lab.find_issues({name: dict(options) for name, options in CHECKS.items()}, n_jobs=1,
                    verbose=False)  # fmt: skip
    seconds = time.perf_counter() - start
    rows = {
        str(index): {
            name: [float(row[f"{name}_score"]), bool(row[f"is_{name}_issue"])] for name in CHECKS
        }
        for index, row in lab.issues.iterrows()
    }
    with open(out, "w") as file:  # noqa: PTH123
        json.dump({"seconds": seconds, "images": rows}, file)


if __name__ == "__main__":
    main()
