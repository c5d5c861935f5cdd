"""The page as files over HTTP: what is sent, to whom, and that it needs nothing from elsewhere."""

from __future__ import annotations

import fnmatch
import json
import re
import tomllib
from pathlib import Path

import pytest

from epd.gateway.page.files import BELOW, FOLDER, PATHS
from tests.gateway.conftest import Serve
from tests.gateway.scripted import ScriptedService

pytestmark = pytest.mark.anyio

MOST_BYTES = 300_000
ROOT = Path(__file__).parent.parent.parent
FILES = sorted(path for path in FOLDER.rglob("*") if path.is_file())
OWN = [path for path in FILES if path.suffix in (".html", ".css", ".js", ".svg", ".json")]
OWN = [path for path in OWN if path.parent.name != "vendor"]

NAMED = re.compile(
    r"""(?:from |import )"(\./[^"]+)"|(?:src|href)="(page/[^"]+)"|fetch\("([^"]+)"\)"""
)
NAMESPACE = "http://www.w3.org/2000/svg"
ADDRESS = re.compile(r"(?:https?:)?//[\w.-]+\.\w+")


def sources(policy: str) -> dict[str, list[str]]:
    parts = [part.split() for part in policy.split(";")]
    return {name: values for name, *values in parts}


async def test_the_page_lets_nothing_in_that_is_not_its_own(serve: Serve) -> None:
    async with serve(ScriptedService()) as client:
        response = await client.get("/")
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert response.headers["x-content-type-options"] == "nosniff"
    allowed = sources(response.headers["content-security-policy"])
    assert allowed["default-src"] == ["'none'"] and allowed["script-src"] == ["'self'"]
    assert allowed["frame-ancestors"] == ["'none'"]
    assert {value for values in allowed.values() for value in values} <= {
        *("'none'", "'self'", "blob:", "'script'", "dompurify")
    }
    assert not re.search(r"<script(?! type=\"module\" src=)|<style|\son\w+=", response.text)


async def test_every_file_of_the_page_is_there_and_together_they_are_small(serve: Serve) -> None:
    total = 0
    async with serve(ScriptedService()) as client:
        for path in PATHS:
            response = await client.get(path)
            assert response.status_code == 200, path
            assert "content-security-policy" in response.headers
            total += len(response.content)
    assert len(PATHS) == len(FILES) and total < MOST_BYTES


@pytest.mark.parametrize("file", OWN, ids=lambda path: path.name)
def test_what_a_file_names_is_there_and_on_no_other_host(file: Path) -> None:
    text = file.read_text()
    for relative, below, fetched in NAMED.findall(text):
        if relative:
            assert (file.parent / relative).is_file(), relative
        else:
            assert f"/{below or fetched}" in PATHS, below or fetched
    assert not ADDRESS.findall(text.replace(NAMESPACE, ""))


def test_samples_name_files_that_are_there() -> None:
    for sample in json.loads((FOLDER / "samples.json").read_text()):
        assert all(f"{BELOW}/samples/{name}" in PATHS for name in sample["files"])


def test_samples_are_the_examples() -> None:
    """Both are what examples/draw.py wrote."""
    for file in (FOLDER / "samples").iterdir():
        assert file.read_bytes() == (ROOT / "examples" / file.name).read_bytes()


def test_every_file_is_part_of_the_package() -> None:
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())
    patterns = patterns["tool"]["setuptools"]["package-data"]["epd"]
    for file in FILES:
        name = file.relative_to(ROOT / "epd").as_posix()
        depth = name.count("/")
        fits = (p for p in patterns if p.count("/") == depth and fnmatch.fnmatch(name, p))
        assert any(fits), name


async def test_a_file_that_has_not_changed_is_not_sent_again(serve: Serve) -> None:
    async with serve(ScriptedService()) as client:
        tag = (await client.get("/page/app.js")).headers["etag"]
        again = await client.get("/page/app.js", headers={"if-none-match": tag})
    assert (again.status_code, again.content) == (304, b"")


async def test_a_browser_gets_the_page_before_it_shows_a_key_and_nothing_else(serve: Serve) -> None:
    key = "sk-one-of-them-1234"
    async with serve(ScriptedService(), api_keys=({"key": key},)) as client:
        assert (await client.get("/")).status_code == 200
        assert (await client.get("/page/app.js")).status_code == 200
        for path in ("/v1/models", "/cluster", "/page/../cluster", "/page/files.py"):
            assert (await client.get(path)).status_code == 401


@pytest.mark.parametrize("path", ["/page", "/page/", "/page/files.py", "/page/%2e%2e/files.py"])
async def test_nothing_beside_the_pages_files_is_sent(serve: Serve, path: str) -> None:
    async with serve(ScriptedService()) as client:
        assert (await client.get(path)).status_code == 404


async def test_without_ui_there_is_no_page_and_nothing_is_public_that_was_not(serve: Serve) -> None:
    async with serve(ScriptedService(), ui=False) as client:
        for path in PATHS:
            assert (await client.get(path)).status_code == 404
        assert (await client.get("/v1/models")).status_code == 200
    key = "sk-one-of-them-1234"
    async with serve(ScriptedService(), ui=False, api_keys=({"key": key},)) as client:
        assert (await client.get("/")).status_code == 401


async def test_a_model_says_how_many_items_of_each_kind_it_takes(serve: Serve) -> None:
    async with serve(ScriptedService(), max_items=3) as client:
        (card,) = (await client.get("/v1/models")).json()["data"]
    assert card["items"] == {"image": 3, "video": 3}
