"""What an ablation has judged so far, on disk: ended anywhere and started again, it goes on with what is left.

One of checkpoint_files for a cut and a variant. It counts as long as code, settings, the days that are
judged and the raw files that had arrived by their end are the same.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nightrec import checkpoint_files, raw
from nightrec.config import Config
from nightrec.metrics.bootstrap import Resampled
from nightrec.past import manifest

_SUMS = ("counts", "totals", "drawn", "sums")


@dataclass(frozen=True)
class Kept:
    """The figures of variants at `cuts`, in the folder of each cut."""

    cuts: dict[date, Path]

    @classmethod
    def of(cls, config: Config, cuts: Sequence[date], days: int) -> Kept:
        """Among the reports. What other code, settings or days left is removed."""
        asked = f"{manifest.code()} {days} {manifest.settings(config, 'ranked_topk')}"
        root = Path(config.paths.reports) / "judged"
        study = root / manifest.fingerprint(asked)
        for other in root.glob("*"):
            if other != study:
                shutil.rmtree(other)
        found = {cut: study / f"{cut}-{_arrived(config, cut + timedelta(days=days))}" for cut in cuts}
        for folder in found.values():
            folder.mkdir(parents=True, exist_ok=True)
            checkpoint_files.sweep(folder)
        return cls(found)

    def has(self, cut: date, variant: str) -> bool:
        """Whether a variant was judged at a cut."""
        return self._arrays(cut, variant) is not None

    def get(self, cut: date, variant: str, names: Sequence[Hashable]) -> tuple[Resampled, float]:
        """The figures of a variant, called `names`, and the seconds that it took."""
        found = self._arrays(cut, variant)
        assert found is not None  # it has been judged
        return Resampled(tuple(names), *(found[name] for name in _SUMS)), float(found["seconds"])

    def put(self, cut: date, variant: str, figures: Resampled, seconds: float) -> None:
        """Keep what was found of a variant."""
        arrays = {"seconds": np.array(seconds), **{name: getattr(figures, name) for name in _SUMS}}
        checkpoint_files.write(self._file(cut, variant), self.cuts[cut].name, arrays, "ablation")

    def forget(self, cut: date) -> None:
        """Remove what was kept of a cut."""
        for file in self.cuts[cut].iterdir():
            file.unlink()

    def _arrays(self, cut: date, variant: str) -> dict[str, npt.NDArray[Any]] | None:
        return checkpoint_files.read(self._file(cut, variant), self.cuts[cut].name)

    def _file(self, cut: date, variant: str) -> Path:
        return self.cuts[cut] / f"{re.sub('[^a-z0-9]+', '-', variant)}.npz"


def _arrived(config: Config, until: date) -> str:
    """Fingerprint of the raw files of all ingest dates up to one."""
    marks = [
        f"{kind} {day} {raw.marks(config.paths.raw, kind, day)}"
        for kind in ("events", "items", "users")
        for day in raw.ingest_dates(config.paths.raw, kind)
        if day <= until
    ]
    return manifest.fingerprint("\n".join(marks))
