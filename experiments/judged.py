"""Judge the rows of the table of cells anew, by the check as it is: whether bars hold or nobody can
tell depends on the temperature and the chance of their twin alone, which are in each row. What was
refused stays refused.

    python experiments/judged.py experiments/coverage_cells.csv
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

from coverage_cells import COLUMNS


def judged(row: dict[str, str]) -> dict[str, object]:
    """A row with the verdict, its reason and the foretold chance of today."""
    from ptychon.metrics.residual import PROBABILITIES
    from ptychon.uncertainty.verdict import NOT, Twin

    modes = 0
    if "probe known" not in row["cell"]:
        modes = 2 if "two modes" in row["cell"] else 1
    twin = Twin(
        temperature=float(row["temperature"]),
        chance=float(row["chance"]),
        covered=PROBABILITIES,
        misfit=1.0,
        assumed=0.0,
        error_db=0.0,
        modes=modes,
    )
    if row["verdict"] == NOT:
        return {**row, "outside": twin.outside}
    said = {"verdict": twin.verdict, "reason": twin.reason, "holds": int(twin.holds)}
    return {**row, "outside": twin.outside, **said}


def main(path: Path) -> None:
    from ptychon.io.hdf5 import write_aside

    with path.open(newline="", encoding="utf-8") as file:
        before = [row for row in csv.DictReader(file) if row["seconds"]]
    after = [judged(row) for row in before]
    with write_aside(path) as aside, aside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(after)
    changed = sum(a["verdict"] != b["verdict"] for a, b in zip(after, before, strict=True))
    print(f"{len(after)} rows, {changed} verdicts changed")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
