"""Which URLs may be read, by what they say alone; and that a fetch asks on every hop."""

from __future__ import annotations

from pathlib import Path

import pytest

from epd.config import MediaConfig
from epd.errors import BadMedia, ConfigError
from epd.media import Fetcher, Policy
from epd.types import Modality
from tests.media.site import Site, body, redirect


def refused(url: str, *domains: str, local: Path | None = None) -> str:
    """The reason, "" where there is none."""
    try:
        Policy(MediaConfig(allowed_domains=domains, allowed_local_path=local)).check(url)
    except BadMedia as error:
        return error.message
    return ""


def test_without_a_list_every_host_may_be_asked() -> None:
    """Addresses are another matter, judged when they are known."""
    for host in ("example.org", "127.0.0.1", "[::1]", "localhost"):
        assert refused(f"http://{host}/") == ""


@pytest.mark.parametrize(
    "host",
    [
        "example.org",
        "EXAMPLE.org",
        "example.org.",
        "example.org:8080",
        "cdn.example.net",
        "a.b.example.net",
        "xn--bcher-kva.example",
        "b\u00fccher.example",
        "192.0.2.7",
    ],
)
def test_listed_hosts_and_hosts_below_a_listed_suffix_are_allowed(host: str) -> None:
    """In any spelling that means the same host."""
    domains = ("Example.org", ".example.net", "b\u00fccher.example", "192.0.2.7")
    assert refused(f"https://{host}/a.png", *domains) == ""


@pytest.mark.parametrize(
    "host",
    [
        "example.com",
        "cdn.example.org",
        "evil-example.org",
        "example.org.evil.com",
        "example.net",
        "evilexample.net",
        "192.0.2.8",
        "3221225991",
        "[::ffff:192.0.2.7]",
    ],
)
def test_any_other_host_is_refused(host: str) -> None:
    """An exact name allows nothing below it, a suffix not itself, a number no other writing."""
    domains = ("example.org", ".example.net", "192.0.2.7")
    assert refused(f"https://{host}/a.png", *domains) == "domain not allowed"


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org@evil.com/",
        "http://evil.com\\@example.org/",
        "http://evil.com#@example.org/",
        "http://evil.com?@example.org/",
        "http://evil.com/@example.org/",
        "http://example.org%2f@evil.com/",
        "http://example.org\t.evil.com/",
        "http:/\\example.org/",
        "http:example.org/",
        "//example.org/",
        "HTTP://[::1]example.org/",
    ],
)
def test_what_parsers_read_differently_is_refused(url: str) -> None:
    """No reading of it may reach a host that is not listed."""
    assert refused(url, "example.org") != ""


@pytest.mark.parametrize("entry", ["", ".", "*", "*.example.org", "https://example.org", "a b"])
def test_a_domain_that_is_none_is_the_operators_error(entry: str) -> None:
    """It would silently allow nothing."""
    with pytest.raises(ConfigError, match="allowed_domains"):
        Policy(MediaConfig(allowed_domains=(entry,)))


def test_every_hop_is_asked_for(site: Site) -> None:
    """A listed site that redirects elsewhere does not lead there."""
    site.pages["/away"] = redirect(f"http://other.example:{site.port}/secret")
    site.pages["/on"] = redirect(f"http://cdn.good.example:{site.port}/file")
    site.pages["/file"] = body(b"there")
    site.pages["/secret"] = body(b"secret")
    config = MediaConfig(
        allow_private_addresses=True, allowed_domains=("good.example", ".good.example")
    )
    fetcher = Fetcher(config, resolver=lambda host, port: ["127.0.0.1"])
    url = f"http://good.example:{site.port}"
    with pytest.raises(BadMedia, match="domain not allowed"):
        fetcher.fetch(f"{url}/away", Modality.IMAGE)
    with pytest.raises(BadMedia, match="domain not allowed"):
        fetcher.fetch(f"http://other.example:{site.port}/secret", Modality.IMAGE)
    assert fetcher.fetch(f"{url}/on", Modality.IMAGE) == b"there"
    assert [path for path, _ in site.seen] == ["/away", "/on", "/file"]


def test_a_listed_host_with_a_private_address_is_still_refused(site: Site) -> None:
    """The list is of names; whoever owns a name chooses its address."""
    site.pages["/"] = body(b"secret")
    fetcher = Fetcher(
        MediaConfig(allowed_domains=("good.example",)), resolver=lambda host, port: ["127.0.0.1"]
    )
    with pytest.raises(BadMedia, match="address not allowed"):
        fetcher.fetch(f"http://good.example:{site.port}/", Modality.IMAGE)
    assert site.seen == []


def test_local_files_need_a_folder(tmp_path: Path) -> None:
    """Whether the file exists is not looked at here, so nothing tells it."""
    for url in (f"file://{tmp_path}/a.png", "file:///no/such", "FILE:///etc/passwd"):
        assert refused(url) == "local files are not allowed"
        assert refused(url, "example.org", local=tmp_path) == ""
    assert refused("file://evil.example/etc/passwd", local=tmp_path) != ""
