"""A raw root of JSON lines, thinned: what a shop looks like where most people have bought a thing or two.

    .venv/bin/python infra/quality/thinned.py --raw FOLDER --out FOLDER --share 0.1
    make quality NAME=made/thinned-new RAW=FOLDER

Each event stays with the same chance, by a hash of its line: rhythm, tastes and trends are those of the log, while
users and items of one to five events become many. Items and users stay.
"""

from __future__ import annotations

import argparse
import gzip
import shutil
import sys
import zlib
from pathlib import Path

from nightrec.raw_files import file_format


def main() -> None:
    """Write the raw root."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--raw", required=True, type=Path, metavar="FOLDER", help="the log's raw root")
    arguments.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="the raw root to write")
    arguments.add_argument("--share", type=float, default=0.1, help="of events that stay")
    options = arguments.parse_args()
    read, kept = thinned(options.raw, options.out, options.share)
    print(f"{kept:,} of {read:,} events written to {options.out}")


def thinned(raw: Path, out: Path, share: float) -> tuple[int, int]:
    """Write a raw root to `out` with this share of the events of another; how many were read, and how many stay.

    Events in other files than JSON lines end it: cut into lines, those would be broken.
    """
    read = kept = 0
    for file in sorted(file for file in raw.rglob("*") if file.is_file()):
        target = out / file.relative_to(raw)
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.relative_to(out).parts[0] != "events":
            shutil.copyfile(file, target)
            continue
        if file_format(file.name) != "json":
            sys.exit(f"{file}: only events in JSON lines can be thinned")
        opened = gzip.open if file.name.lower().endswith(".gz") else open
        with opened(file, "rb") as lines, opened(target, "wb") as stay:
            for line in lines:
                read += 1
                if zlib.crc32(line.rstrip()) < share * 2**32:
                    kept += 1
                    stay.write(line)
    return read, kept


if __name__ == "__main__":
    main()
