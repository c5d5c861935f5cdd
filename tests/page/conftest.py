"""A browser, and pages of it that must never leave the server nor break the page's policy.

Playwright is in .venvs/page, whose interpreter is this one; the browser is the system's.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from tokenizers import Tokenizer

from epd.models.spec import Checkpoint
from epd.types import FinishReason
from tests.clients import environments
from tests.gateway.scripted import Last, Step
from tests.page import chromium
from tests.page.site import PageService, Site
from tests.prompt.folders import write_every_modality

Visit = Callable[..., Any]
Script = Callable[..., list[Step]]
WIDE = {"width": 1360, "height": 860}
TIMEOUT_MS = 60_000
LAUNCH_MS = 240_000


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Skips, and says what is missing, where it cannot be driven."""
    if environments.missing("page"):
        pytest.skip("no .venvs/page: `make test-page`")
    if chromium.find() is None:
        pytest.skip(chromium.MISSING)
    packages = environments.FOLDER / "page" / "lib" / f"python3.{sys.version_info.minor}"
    sys.path.append(str(packages / "site-packages"))
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(
            executable_path=chromium.find(),
            timeout=LAUNCH_MS,
            # The pages are our own, and in a container there are no namespaces for a sandbox.
            args=["--no-sandbox"],
        )
        yield found
        found.close()


@pytest.fixture
def visit(browser: Any) -> Iterator[Visit]:
    """`visit(url, **context)` opens a page in a browser of its own."""
    opened: list[tuple[Any, str, list[str], list[str]]] = []

    def open_page(url: str, **context: Any) -> Any:
        made = browser.new_context(**{"viewport": WIDE, **context})
        page = made.new_page()
        page.set_default_timeout(TIMEOUT_MS)
        asked: list[str] = []
        broken: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: broken.append(str(error)))
        page.on("console", lambda said: _judge(said, broken))
        page.goto(url)
        opened.append((made, url, asked, broken))
        return page

    yield open_page
    for context, url, asked, broken in opened:
        context.close()
        there = urlsplit(url).netloc
        away = [one for one in asked if urlsplit(one).netloc != there]
        assert not [one for one in away if urlsplit(one).scheme != "blob"]
        assert not broken


def _judge(said: Any, broken: list[str]) -> None:
    """A failed request is an error to the console, and the page shows it; the policy is never."""
    if said.type == "error" and not said.text.startswith("Failed to load resource"):
        broken.append(said.text)


@pytest.fixture(scope="session")
def every(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """A model that takes all there is."""
    return write_every_modality(tmp_path_factory.mktemp("every"))


@pytest.fixture(scope="session")
def says(every: Checkpoint) -> Script:
    """The steps of an answer: `says("a ", "circle")`; `ends=False`: it never ends by itself."""
    tokenizer = Tokenizer.from_file(str(every.path / "tokenizer.json"))

    def script(*texts: str, ends: bool = True) -> list[Step]:
        steps: list[Step] = [tokenizer.encode(text).ids for text in texts]
        return [*steps, Last((), FinishReason.STOP) if ends else None]

    return script


@pytest.fixture
def site(every: Checkpoint, says: Script) -> Iterator[Callable[..., Site]]:
    """`site(*texts, model=..., ends=..., **gateway)`: a server that answers so."""
    opened: list[Site] = []

    def open_site(
        *texts: str, model: Checkpoint | None = None, ends: bool = True, **gateway: Any
    ) -> Site:
        service = PageService(says(*texts, ends=ends))
        opened.append(Site(model or every, service, **gateway))
        return opened[-1]

    yield open_site
    for one in opened:
        one.stop()


@pytest.fixture(scope="session")
def examples() -> Path:
    """The folder of the examples' media."""
    return environments.ROOT / "examples"
