"""The intake's threads: who waits for whom, and who does not."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from epd.config import MediaConfig
from epd.config.media import ImageLimits
from epd.encoder import ItemPrepared
from tests.encoder.bench import Bench, key, picture
from tests.media.site import Page, Site, body


@pytest.fixture
def release(site: Site) -> threading.Event:
    """Slow pages answer once it is set; a test must set it."""
    return threading.Event()


def slow(release: threading.Event) -> Page:
    def page(handler: BaseHTTPRequestHandler) -> None:
        release.wait(30)
        body(picture(2))(handler)

    return page


def open_bench(benches: list[Bench], **config: Any) -> Bench:
    """One that may fetch from loopback."""
    bench = Bench(
        media=MediaConfig(allow_private_addresses=True, image=ImageLimits(timeout_s=30)), **config
    )
    benches.append(bench)
    return bench


def prepared(bench: Bench) -> int:
    """Which item is prepared next."""
    event = bench.event()
    assert isinstance(event, ItemPrepared)
    return event.item.index


def test_slow_servers_delay_neither_inline_items_nor_other_urls(
    benches: list[Bench], site: Site, release: threading.Event
) -> None:
    bench = open_bench(benches, intake_threads=1, fetch_threads=3)
    site.pages |= {"/slow": slow(release), "/fast": body(picture(3))}
    bench.submit(key(0), url=f"{site.url}/slow")
    bench.submit(key(1), url=f"{site.url}/slow")
    bench.submit(key(2), picture(3))
    assert prepared(bench) == 2
    bench.submit(key(3), url=f"{site.url}/fast")
    assert prepared(bench) == 3
    release.set()
    assert {prepared(bench), prepared(bench)} == {0, 1}


def test_no_more_than_the_limit_are_preprocessed_at_once(benches: list[Bench], site: Site) -> None:
    """Whichever threads they come from."""
    bench = open_bench(benches, intake_threads=1, fetch_threads=4)
    data = picture(3)
    site.pages["/p"] = body(data)
    bench.towers.gate = threading.Event()
    for index in range(8):
        if index % 2:
            bench.submit(key(index), url=f"{site.url}/p")
        else:
            bench.submit(key(index), data)
    assert bench.towers.entered.wait(30)
    bench.towers.gate.set()
    assert {prepared(bench) for _ in range(8)} == set(range(8))
    assert bench.towers.most_inside == 1


def test_a_dropped_item_counts_until_its_fetch_has_ended(
    benches: list[Bench], site: Site, release: threading.Event
) -> None:
    bench = open_bench(benches)
    site.pages["/slow"] = slow(release)
    bench.submit(key(0), url=f"{site.url}/slow")
    bench.encoder.drop(key(0))
    assert bench.encoder.gauges()["intake_jobs"] == 1
    assert not any(bench.held().values())
    release.set()
    bench.encoder.close()
    assert bench.encoder.gauges()["intake_jobs"] == 0
    assert bench.inbox.empty()
