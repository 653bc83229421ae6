"""Write the tables of docs/benchmarks.md, and their pictures, from the results: ``make docs``.

python lab/make_tables.py            write tables and pictures
python lab/make_tables.py --check    exit with 1 if the tables are out of date
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a bare checkout will do

from lab.studies.results import read_results
from lab.studies.tables import draw, draw_gap, markdown

__all__ = ["PAGE", "render"]

DOCS = Path(__file__).parent
PAGE = DOCS / "benchmarks.md"
CELLS = DOCS / "studies" / "systems"
START, END = "<!-- tables: made by `make docs`, a test compares them -->", "<!-- end of tables -->"


def render(page: str, *, pictures: bool) -> str:
    """Return the page with its tables made again from the cells.

    Args:
        page: as it is, with the two marks.
        pictures: draw them too.

    Raises:
        ValueError: a mark is missing.
    """
    results = read_results(CELLS)
    drawn = sorted(path.name for path in CELLS.glob("study-*.png"))
    if pictures:
        drawn = sorted([path.name for path in draw(results, CELLS)] + ["study-gap.png"])
        draw_gap(results, CELLS / "study-gap.png")
    shown = "\n".join(f"![{name[6:-4]}](studies/systems/{name})" for name in drawn)
    start, end = page.index(START) + len(START), page.index(END)
    return f"{page[:start]}\n\n{markdown(results)}\n\n{shown}\n\n{page[end:]}"


def main() -> None:
    """Write the page, or check it."""
    page = PAGE.read_text(encoding="utf-8")
    if "--check" in sys.argv[1:]:
        if render(page, pictures=False) != page:
            sys.exit("docs/benchmarks.md is out of date: run `make docs`")
        return
    PAGE.write_text(render(page, pictures=True), encoding="utf-8")


if __name__ == "__main__":
    main()
