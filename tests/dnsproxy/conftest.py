"""One bed per test file; every test gets a running proxy with usual rules."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.dnsproxy.bed import Bed


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    bed = Bed(tmp_path_factory.mktemp("dns"))
    try:
        bed.start()
        bed.run_proxy()
        yield bed
    finally:
        bed.close()


@pytest.fixture
def bed(whole: Bed) -> Bed:
    whole.resolver.answer = whole.resolver.usual
    whole.resolver.asked.clear()
    return whole
