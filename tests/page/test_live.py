"""The page of a real cluster with the embedded model: right answers, also when a worker dies."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from epd.cli import default_model
from examples.draw import beeps, clip, picture, png
from tests.cluster.running import Cluster, eventually
from tests.page.conftest import Visit
from tests.page.moves import answered, ask, carry

pytestmark = [pytest.mark.page, pytest.mark.timeout(600)]

SLOW_MS = 120_000

CASES = [
    pytest.param(
        [("one.png", png(picture(("triangle", "green", 0.46, 0.55, 0.28))))],
        {
            "What shape is this?": ["triangle"],
            "What colour is it?": ["green"],
            "How many shapes are there?": ["one"],
        },
        id="a picture",
    ),
    pytest.param(
        [
            (
                "two.png",
                png(
                    picture(
                        ("triangle", "green", 0.2, 0.2, 0.15), ("square", "red", 0.8, 0.8, 0.15)
                    )
                ),
            )
        ],
        {
            "How many shapes are there?": ["two"],
            "What is in the picture?": ["green triangle", "red square"],
            "Describe the picture.": ["green triangle", "red square"],
        },
        id="two shapes",
    ),
    pytest.param(
        [("moves.mp4", clip("star", "yellow", "left"))],
        {
            "Which way does it move?": ["left"],
            "What shape is moving?": ["star"],
            "What happens?": ["yellow star", "left"],
        },
        id="a video",
    ),
    pytest.param(
        [("beeps.wav", beeps(4, pitch=1500))],
        {
            "How many beeps are there?": ["four"],
            "Is the sound high or low?": ["high"],
            "What do you hear?": ["four high beeps"],
        },
        id="a sound",
    ),
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Pictures go to either of two encoders."""
    cluster = Cluster(default_model.path(), "2E1P1D")
    yield cluster
    assert cluster.stop() == 0


@pytest.fixture
def page(cluster: Cluster, visit: Visit) -> Any:
    found = visit(cluster.url)
    found.set_default_timeout(SLOW_MS)
    found.locator(".samples").wait_for()
    return found


@pytest.mark.parametrize(("files", "questions"), CASES)
def test_media_it_has_never_seen_are_answered_about(
    page: Any, files: list[tuple[str, bytes]], questions: dict[str, list[str]]
) -> None:
    for question, words in questions.items():
        page.get_by_role("button", name="New chat").click()
        carry(page, "drop", *files)
        said = ask(page, question).locator(".text").inner_text().lower()
        assert all(word in said for word in words), (question, said)


def test_samples_are_answered(page: Any) -> None:
    expected = {
        "A picture": ["circle"],
        "Two pictures": ["circle", "square"],
        "A video": ["right"],
        "A sound": ["three"],
        "Several shapes": ["green triangle", "purple square"],
    }
    for label, words in expected.items():
        page.get_by_role("button", name="New chat").click()
        page.get_by_role("button", name=label).click()
        said = answered(page).locator(".text").inner_text().lower()
        assert all(word in said for word in words), (label, said)
        assert page.locator(".timeline .track").count() >= 4


def test_an_encoder_that_dies_is_seen_to_leave_and_the_answer_still_comes(
    page: Any, cluster: Cluster
) -> None:
    """The one that is asked first holds still when the question comes, and dies with a picture in
    its hands."""
    page.locator(".worker", has_text="encode-1").wait_for()
    carry(page, "drop", ("c.png", png(picture(("circle", "blue", 0.4, 0.5, 0.22)))))
    ask(page, "What shape is this?")
    (name,) = set(re.findall(r"encode-\d", page.locator(".tracks").inner_text()))
    page.get_by_role("button", name="New chat").click()
    files = [
        ("a.png", png(picture(("triangle", "green", 0.52, 0.5, 0.24)))),
        ("b.png", png(picture(("star", "yellow", 0.5, 0.5, 0.27)))),
    ]
    carry(page, "drop", *files)
    encoder = cluster.child(f"encode {name}")
    encoder.suspend()
    page.get_by_label("Question", exact=True).fill("Compare the two pictures.")
    page.keyboard.press("Enter")
    eventually(lambda: _running(cluster) == 1, "the question is under way")
    encoder.kill()
    said = answered(page).locator(".text").inner_text().lower()
    assert "green triangle" in said and "yellow star" in said
    assert "2 attempts" in page.locator(".tracks").inner_text()
    page.locator(".news").get_by_text(f"{name} left").wait_for()
    page.locator(".news").get_by_text(f"{name} joined").wait_for()


def _running(cluster: Cluster) -> int:
    return int(httpx.get(f"{cluster.url}/cluster").json()["requests"])
