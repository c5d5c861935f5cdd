"""What a visitor sees of a request's way and of the cluster, on any screen and without a mouse."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.page.conftest import Visit
from tests.page.moves import answered, ask
from tests.page.site import PageService, Site, worker

pytestmark = pytest.mark.page

Open = Callable[..., Site]
KINDS = ("fetch", "read", "preprocess", "encode", "transfer", "wait", "prefill", "handoff")
FOCUSED = "document.activeElement.ariaLabel || document.activeElement.innerText"
PHONE = {"viewport": {"width": 375, "height": 740}}


def test_the_timeline_has_every_stage_of_the_way(visit: Visit, site: Open) -> None:
    page = visit(site("Yes.").url)
    answer = ask(page, "Is it?")
    tracks = answer.locator(".track .who").all_inner_texts()
    assert tracks == [
        *("gateway places it", "encode-1 image 1", "prefill-0 rows come", "prefill-0 prompt"),
        *("decode-0 KV comes", "decode-0 tokens"),
    ]
    for kind in KINDS:
        assert answer.locator(f".tracks .bar.{kind}").count() >= 1, kind
    assert answer.locator(".tracks .bar.decode").count() == 1
    assert answer.locator(".bar.prefill").count() == 2
    assert answer.locator(".bar.fetch").get_attribute("title") == "fetch: 10 ms, from 2 ms"


def test_bars_lie_where_the_time_was(visit: Visit, site: Open) -> None:
    page = visit(site("Yes.").url)
    answer = ask(page, "Is it?")

    def box(kind: str) -> Any:
        return answer.locator(f".tracks .bar.{kind}").last.bounding_box()

    def check() -> None:
        """One scale for all: 25 ms encode begins where preprocess ends, and 20 ms is its width."""
        preprocess, encode = box("preprocess"), box("encode")
        assert encode["x"] == pytest.approx(preprocess["x"] + preprocess["width"], abs=1)
        scale = preprocess["width"] / 8
        assert encode["width"] == pytest.approx(20 * scale, rel=0.05, abs=1)
        assert box("prefill")["x"] - encode["x"] == pytest.approx(23 * scale, rel=0.05, abs=1.5)

    check()
    near = box("encode")["width"]
    answer.get_by_role("button", name="Whole answer").click()
    assert box("encode")["width"] < near / 3
    assert box("decode")["width"] > 10 * box("encode")["width"]


def test_the_cluster_is_seen_live(visit: Visit, site: Open) -> None:
    server = site("")
    assert isinstance(server.service, PageService)
    page = visit(server.url)
    gone = page.locator(".worker.gone")
    page.get_by_text("encode-1").wait_for()
    assert page.locator("#cluster h3").all_inner_texts() == ["ENCODE", "PREFILL", "DECODE"]
    encoder = page.locator(".worker", has_text="encode-1").inner_text()
    assert "2 items" in encoder and "1 queued" in encoder and "75% hits" in encoder
    assert "25% used, 50% cached" in page.locator(".worker", has_text="prefill-0").inner_text()
    left = server.service.there.pop(1)
    gone.wait_for()
    assert "encode-1" in gone.inner_text() and "left" in gone.inner_text()
    page.locator(".news").get_by_text("encode-1 left").wait_for()
    server.service.there.append({**left, "pid": 99})
    page.locator(".news").get_by_text("encode-1 joined").wait_for()
    assert gone.count() == 0
    server.service.there.append(worker("encode-2", "encode", state="draining"))
    page.locator(".worker.draining").wait_for()


def test_a_server_that_is_gone_is_said_and_found_again(visit: Visit, site: Open) -> None:
    page = visit(site("").url)
    page.get_by_text("encode-1").wait_for()
    page.context.set_offline(True)
    page.get_by_text("the server does not answer").wait_for()
    page.context.set_offline(False)
    page.get_by_text("ready", exact=False).first.wait_for()


def test_everything_can_be_reached_and_used_from_the_keyboard(visit: Visit, site: Open) -> None:
    page = visit(site("Yes.").url)
    page.locator(".samples").wait_for()
    reached = []
    for _ in range(24):
        page.keyboard.press("Tab")
        reached.append(page.evaluate(FOCUSED))
    told = " ".join(str(one) for one in reached)
    for name in ("New chat", "Settings", "Two pictures", "Add files", "Question", "Colours"):
        assert name in told, name
    page.get_by_role("button", name="A picture").focus()
    page.keyboard.press("Enter")
    answered(page)
    page.get_by_label("Question", exact=True).focus()
    page.keyboard.type("first line")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("second line")
    page.keyboard.press("Enter")
    answered(page, 1)
    assert page.locator(".question p").last.inner_text() == "first line\nsecond line"


def test_on_a_phone_nothing_is_wider_than_the_screen(visit: Visit, site: Open) -> None:
    page = visit(site("A rather long answer " * 20).url, **PHONE)
    page.locator(".samples").wait_for()

    def fits() -> bool:
        width = page.evaluate("document.scrollingElement.scrollWidth")
        return bool(width <= 375)

    assert fits()
    page.get_by_role("button", name="A picture").click()
    answered(page)
    assert fits() and page.locator("#cluster").is_hidden()
    page.get_by_role("button", name="Cluster").click()
    page.get_by_text("encode-1").first.wait_for()
    assert page.locator("#cluster").is_visible() and fits()
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Chats").click()
    assert page.get_by_role("button", name="New chat").is_visible() and fits()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_follow_the_system_and_can_be_chosen(visit: Visit, site: Open, scheme: str) -> None:
    page = visit(site("").url, color_scheme=scheme)

    def brightness() -> int:
        colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
        return sum(int(part) for part in colour.removeprefix("rgb(").removesuffix(")").split(","))

    assert (brightness() > 600) == (scheme == "light")
    button = page.locator("button.theme")
    for theme in ("light", "dark"):
        button.click()
        page.locator(f'html[data-theme="{theme}"]').wait_for(state="attached")
        assert (brightness() > 600) == (theme == "light")
    page.reload()
    assert brightness() < 150
