"""What counts as a URL to fetch."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epd.errors import BadMedia
from epd.media.url import MAX_URL, parse_url


def test_a_plain_url_is_taken_apart() -> None:
    """Default port, no path."""
    target = parse_url("HTTP://Example.COM")
    assert (target.scheme, target.host, target.port) == ("http", "example.com", 80)
    assert (target.authority, target.path) == ("example.com", "/")


def test_port_and_ipv6_stay_in_the_host_header() -> None:
    """Brackets belong to the header, not to the address."""
    target = parse_url("https://[2001:db8::1]:8443/a")
    assert (target.host, target.authority) == ("2001:db8::1", "[2001:db8::1]:8443")


def test_other_alphabets_become_ascii() -> None:
    """Host by IDNA, path and query by percent."""
    target = parse_url("https://bücher.example/ä?q=ö")
    assert (target.host, target.path) == ("xn--bcher-kva.example", "/%C3%A4?q=%C3%B6")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "picture.png",
        "/etc/passwd",
        "file:///etc/passwd",
        "ftp://example.com/",
        "data:image/png;base64,AA==",
        "http://",
        "http:///path",
        "http://user@example.com/",
        "http://user:password@example.com/",
        "http://good.example@evil.example/",
        "http://evil.example\\@good.example/",
        "http:\\\\example.com/",
        "http://exam ple.com/",
        "http://example.com/\r\nHost: other",
        "http://example.com/\tx",
        "\x00http://example.com/",
        "http://example.com:0/",
        "http://example.com:99999/",
        "http://example.com:http/",
        "http://example.com:/x:y@z",
        "http://[::1]evil.example/",
        "http://evil[::1]/",
        "http://[::1/",
        "http://[fe80::1%25eth0]/",
        "http://%31%32%37.0.0.1/",
        "http://-a.example/",
        "http://a..example/",
        f"http://{'a' * 64}.example/",
        f"http://example.com/{'a' * MAX_URL}",
    ],
)
def test_anything_else_is_refused(url: str) -> None:
    """With a reason, and without echoing the URL."""
    with pytest.raises(BadMedia) as caught:
        parse_url(url)
    assert "evil" not in caught.value.message
    assert "password" not in caught.value.message


@given(st.text(max_size=40))
def test_any_text_gives_a_target_or_a_reason(text: str) -> None:
    """And a target is plain ASCII without anything that could end a header line."""
    for url in (text, f"http://{text}", f"http://example.com/{text}"):
        try:
            target = parse_url(url)
        except BadMedia:
            continue
        assert target.path.isascii() and target.host.isascii()
        assert not set(" \r\n\t\\") & set(target.path + target.authority)
