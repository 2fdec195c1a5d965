"""The two undisturbed nights that all kill tests compare with: built once per test run, whichever process needs it."""

from __future__ import annotations

import pytest
from deployments import Base, built


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    own = tmp_path_factory.getbasetemp()
    return built((own.parent if own.name.startswith("popen-") else own) / "trust-base")
