"""How a visitor asks, and what is made of it. The cluster is scripted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.page.conftest import Visit
from tests.page.moves import answered, ask, carry, read
from tests.page.site import Site
from tests.prompt.folders import write_folder

pytestmark = pytest.mark.page

Open = Callable[..., Site]


@pytest.mark.parametrize("kind", ["drop", "paste"])
def test_items_that_are_dropped_or_pasted_go_with_the_question(
    visit: Visit, site: Open, examples: Path, kind: str
) -> None:
    server = site("A circle, ", "a clip ", "and three beeps.")
    page = visit(server.url)
    page.locator(".samples").wait_for()
    files = [examples / name for name in ("circle.png", "moving.mp4", "beeps.wav")]
    carry(page, kind, *read(*files))
    assert page.locator(".composer .items li").count() == 3
    answer = ask(page, "What is this?")
    assert answer.locator(".text").inner_text() == "A circle, a clip and three beeps."
    assert page.locator(".question .items > li").count() == 3
    parts = server.service.specs[-1].draft.parts
    assert [part.source.data for part in parts] == [file.read_bytes() for file in files]


def test_files_can_be_chosen_and_taken_back(visit: Visit, site: Open, examples: Path) -> None:
    server = site("Yes.")
    page = visit(server.url)
    page.locator("input[type=file]").set_input_files(
        [examples / "circle.png", examples / "square.png"]
    )
    page.get_by_role("button", name="Remove circle.png").click()
    ask(page, "A square?")
    (part,) = server.service.specs[-1].draft.parts
    assert part.source.data == (examples / "square.png").read_bytes()


def test_one_click_asks_a_sample(visit: Visit, site: Open, examples: Path) -> None:
    server = site("Both.")
    page = visit(server.url)
    page.get_by_role("button", name="Two pictures").click()
    assert answered(page).locator(".text").inner_text() == "Both."
    assert len(server.service.specs[-1].draft.parts) == 2


def test_only_what_the_model_takes_is_offered(
    visit: Visit, site: Open, examples: Path, tmp_path: Path
) -> None:
    server = site("", model=write_folder(tmp_path), max_items=1)
    page = visit(server.url)
    page.locator(".samples").wait_for()
    labels = page.locator(".samples b").all_inner_texts()
    assert "A picture" in labels and "A sound" not in labels and "Two pictures" not in labels
    assert page.locator("input[type=file]").get_attribute("accept") == "image/*,video/*"
    carry(page, "drop", *read(examples / "beeps.wav"))
    assert "takes no sound" in page.get_by_role("alert").inner_text()
    carry(page, "drop", *read(examples / "circle.png", examples / "square.png"))
    assert "1 of the kind picture at most" in page.get_by_role("alert").inner_text()
    carry(page, "drop", ("notes.pdf", b"%PDF"))
    assert "is no picture, video or sound" in page.get_by_role("alert").inner_text()
    assert page.locator(".composer .items").count() == 0


def test_an_answer_is_shown_while_it_is_made_and_can_be_stopped(visit: Visit, site: Open) -> None:
    server = site("It begins", " and goes on", ends=False)
    page = visit(server.url)
    page.get_by_label("Question", exact=True).fill("Tell me")
    page.keyboard.press("Enter")
    page.get_by_text("It begins and goes on").wait_for()
    assert page.locator(".answer.writing").count() == 1
    page.get_by_role("button", name="Stop").click()
    page.get_by_text("stopped").wait_for()
    assert page.get_by_role("button", name="Ask").count() == 1
    (call,) = server.service.calls
    assert _soon(page, lambda: call.num_cancels > 0)


def _soon(page: Any, holds: Callable[[], bool]) -> bool:
    """Within seconds; the page's own clock is what is waited on."""
    for _ in range(100):
        if holds():
            return True
        page.wait_for_timeout(50)
    return False


def test_the_next_question_goes_with_what_was_said_before(visit: Visit, site: Open) -> None:
    server = site("Blue.")
    page = visit(server.url)
    ask(page, "Which colour?")
    ask(page, "And now?")
    lengths = [spec.draft.num_text_tokens for spec in server.service.specs]
    assert len(lengths) == 2 and lengths[1] > lengths[0]
    page.get_by_role("button", name="New chat").click()
    ask(page, "And now?")
    assert server.service.specs[-1].draft.num_text_tokens < lengths[1]


def test_chats_are_there_again_with_their_items(visit: Visit, site: Open, examples: Path) -> None:
    server = site("Red.")
    page = visit(server.url)
    page.locator(".samples").wait_for()
    carry(page, "drop", *read(examples / "circle.png"))
    ask(page, "Which colour is it?")
    page.reload()
    page.locator(".samples").wait_for()
    page.get_by_role("button", name="Which colour is it?", exact=True).click()
    page.locator(".question img").wait_for()
    assert page.locator(".question img").evaluate(
        "image => image.decode().then(() => image.width > 0)"
    )
    assert page.locator(".answer .text").inner_text() == "Red."
    forget = page.get_by_role("button", name="Forget Which colour is it?")
    forget.click()
    forget.wait_for(state="detached")
    page.reload()
    page.locator(".samples").wait_for()
    assert page.locator(".earlier li").count() == 0


def test_what_a_model_writes_is_text_and_never_runs(visit: Visit, site: Open) -> None:
    evil = (
        "**bold** <img src=x onerror=\"document.title='run'\">"
        "<script>document.title='run'</script> [a](javascript:alert(1)) "
        "<style>body{display:none}</style>"
    )
    page = visit(site(evil).url)
    text = ask(page, "Go on").locator(".text")
    assert text.locator("strong").inner_text() == "bold"
    assert text.locator("img, script, style").count() == 0
    assert "<img src=x onerror=" in text.inner_text()
    assert text.locator("a").first.get_attribute("href") is None
    assert page.title() == "epd"


def test_an_error_is_shown_in_the_servers_own_words(visit: Visit, site: Open) -> None:
    page = visit(site("", max_body_bytes=64).url)
    page.get_by_label("Question", exact=True).fill("Hello?")
    page.keyboard.press("Enter")
    page.locator(".answer.failed").wait_for()
    assert "larger than 64 bytes" in page.get_by_role("alert").inner_text()


def test_a_key_is_asked_for_until_it_is_right(visit: Visit, site: Open) -> None:
    server = site("Welcome.", api_keys=({"key": "sk-right-1234567890"},))
    page = visit(server.url)
    field = page.get_by_label("Key", exact=True)
    field.fill("sk-wrong-1234567890")
    page.keyboard.press("Enter")
    page.wait_for_load_state("networkidle")
    assert field.is_visible()
    field.fill("sk-right-1234567890")
    page.keyboard.press("Enter")
    page.locator(".samples").wait_for()
    assert not field.is_visible()
    assert ask(page, "Hello").locator(".text").inner_text() == "Welcome."
