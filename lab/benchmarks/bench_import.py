"""Memory and time of an import: python -m lab.benchmarks.bench_import [--rows 1000000] [--array]

Writes a file of dialogs, imports it into a fresh home without redaction, and prints the process's
largest memory (MiB) at every tenth of the rows.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

from langchain_uno.home import Home
from langchain_uno.logs.exchange import import_file
from langchain_uno.logs.redaction import no_redaction


def write(path: Path, rows: int, *, array: bool) -> None:
    """Write the file, as JSON lines or as one array."""
    with path.open("w") as out:
        out.write("[\n" if array else "")
        for n in range(rows):
            turns = [f"Where is parcel {n}?", f"Parcel {n} comes on Monday.", "Shorter, please."]
            roles = ("user", "assistant", "user")
            messages = [{"role": r, "content": t} for r, t in zip(roles, turns, strict=True)]
            row = {"id": n, "user_id": f"u{n % 5000}", "lang": "en", "messages": messages}
            out.write(json.dumps(row) + (",\n" if array and n < rows - 1 else "\n"))
        out.write("]\n" if array else "")


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--array", action="store_true")
    args = parser.parse_args()
    done = 0
    started = time.monotonic()

    def on_row(n: int) -> None:
        nonlocal done
        done += n
        if done % max(args.rows // 10, 1) == 0:
            memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
            print(f"{done:>9,} rows  {memory} MiB  {time.monotonic() - started:.0f} s", flush=True)

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.json"
        write(path, args.rows, array=args.array)
        home = Home.locate(Path(folder) / "home")
        result = import_file(path, home, redactor=no_redaction(), on_row=on_row)
    print(f"{result.interactions:,} records, {result.feedback:,} pieces of feedback")


if __name__ == "__main__":
    main()
