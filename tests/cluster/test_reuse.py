"""A second turn of a chat with pictures: nothing that is known is encoded or sent once more."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.cluster.cases import LONG_WITH_PICTURES, Client
from tests.cluster.running import Cluster


def total(cluster: Cluster, gauge: str) -> float:
    """Over all workers, as they have it when nothing runs."""
    cluster.wait_until_idle()
    samples = cluster.metrics()
    return sum(v for name, v in samples.items() if name.startswith(f"epd_worker_{gauge}{{"))


@pytest.mark.parametrize("topology", [pytest.param("EPD", marks=pytest.mark.slow), "1E1P1D"])
def test_pictures_whose_kv_is_cached_are_neither_encoded_nor_sent(
    cluster_of: Callable[[str], Cluster], topology: str
) -> None:
    cluster = cluster_of(topology)
    client = Client(cluster)
    case = LONG_WITH_PICTURES
    first = client.ask(case.asked())
    rows, towers = total(cluster, "row_bytes_sent"), total(cluster, "encoded")
    kv = total(cluster, "kv_bytes_sent")
    assert towers == len(case.images)
    assert rows > 0

    second = client.ask(case.asked())

    client.close()
    assert second == first
    assert total(cluster, "encoded") == towers
    assert total(cluster, "row_bytes_sent") == rows
    again = total(cluster, "kv_bytes_sent") - kv
    if topology == "1E1P1D":
        assert 0 < again < kv / 4  # what comes after the last whole block
    else:
        assert again == kv == 0
