"""Pictures of what was measured."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from PIL import Image

from epd.bench.plots import PHASES, cdf, phases, plot
from epd.bench.result import result
from tests.bench.ready import ASKED, run


def test_a_request_that_epd_told_of_is_cut_where_its_moments_are() -> None:
    """300 ms of which the server had it for 280: 10 on the way to it."""
    found = phases(run().records[0])
    assert [name for name, _, _ in found] == list(PHASES)
    assert [at for _, at, _ in found] == pytest.approx([0, 0.01, 0.03, 0.04, 0.09, 0.29])
    assert sum(seconds for _, _, seconds in found) == pytest.approx(0.3)
    assert all(a[1] + a[2] == pytest.approx(b[1]) for a, b in pairwise(found))


def test_another_servers_request_is_cut_at_its_first_token() -> None:
    (before, at, waited), (after, first, rest) = phases(run().records[1])
    assert (before, after) == ("prefill", "decode")
    assert (at, waited, first, rest) == pytest.approx((0.51, 0.2, 0.71, 0.3))


def test_shares_rise_to_all() -> None:
    assert cdf([3.0, 1.0]) == ([1.0, 3.0], [0.5, 1.0])


def test_every_plot_is_a_png(tmp_path: Path) -> None:
    measured = (result(ASKED, run()), run())
    files = plot([measured, measured], tmp_path / "new")
    assert [file.stem for file in files] == ["latency_cdf", "rate_sweep", "waterfall"]
    for file in files:
        with Image.open(file) as image:
            assert image.format == "PNG"
            assert len(image.convert("RGB").getcolors(1 << 24) or ()) > 10
