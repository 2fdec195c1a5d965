"""A soak's result file, without the kills: what is written down is not played again, and what it sums up to."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from spark_commands import CHECKOUT

sys.path.append(str(CHECKOUT / "infra/soak"))
from soak import Result

KILLS = [{"target": "jvm", "pid": 7}, {"target": "rank", "pid": 0}, {"target": "jvm", "pid": 8}]


def test_a_soak_goes_on_where_it_was_ended_unless_the_code_has_changed(tmp_path: Path) -> None:
    file, played = tmp_path / "kills-1.json", []

    def play(name: str, **found: Any) -> Any:
        played.append(name)
        return found | {"said": f"{CHECKOUT}/var/soak"}

    def soak(code: str) -> dict[str, Any]:
        result = Result(file, {"seed": 1, "code": code})
        complaints = ["version 3 has 3 lists"]
        result.part("round 10", lambda: play("round 10", kills=KILLS[:1], looks=5, complaints=complaints))
        result.part("round 2", lambda: play("round 2", kills=KILLS, looks=4, complaints=[]))
        stop = {"signal": "SIGTERM", "point": "jvm", "alive": ["9 python"]}
        result.part("stop 0 SIGTERM", lambda: play("stop 0 SIGTERM", **stop))
        assert json.loads(file.read_text())["code"] == code
        return result.summary()

    found = soak("a")
    assert found == {
        "minutes": 0, "kills_tried": 4, "kills_landed": 3, "kills_by_target": {"jvm": 3}, "nights": 4, "looks": 9,
        "unlawful_snapshots": 1, "stops": 1, "stops_with_survivors": 1,
        "complaints": ["version 3 has 3 lists", "SIGTERM at jvm: 9 python"],
    }  # fmt: skip
    told = json.loads(file.read_text())
    assert list(told["parts"]) == ["round 2", "round 10", "stop 0 SIGTERM"] and told["kills_tried"] == 4
    assert str(CHECKOUT) not in file.read_text()
    assert soak("a") == found and len(played) == 3
    assert soak("b") == found and len(played) == 6
