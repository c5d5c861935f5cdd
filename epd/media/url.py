"""Media URLs, read by one strict parser whose result is what gets connected to.

What parsers disagree about (backslashes, credentials, control characters, odd brackets) is refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv6Address
from urllib.parse import quote, urljoin, urlsplit

from epd.errors import BadMedia

MAX_URL = 8192
_PORTS = {"http": 80, "https": 443}
_NETLOC = re.compile(
    r"(?:\[(?P<v6>[0-9a-fA-F:.]+)\]|(?P<name>[^\[\]:@]+))(?::(?P<port>[0-9]{1,5}))?"
)
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One hop: `host` without brackets, `authority` as the Host header has it."""

    url: str
    scheme: str
    host: str
    port: int
    authority: str
    path: str


def parse_url(url: str) -> Target:
    """BadMedia unless it is a plain http or https URL."""
    _refuse_odd(url)
    try:
        split = urlsplit(url)
    except ValueError:
        raise BadMedia("malformed URL") from None
    if split.scheme not in _PORTS:
        raise BadMedia("only http and https URLs can be fetched")
    if "@" in split.netloc:
        raise BadMedia("credentials in a URL are not allowed")
    host, shown, port = _host_and_port(split.netloc, split.scheme)
    default = port == _PORTS[split.scheme]
    path = quote(split.path or "/", safe="/%:@!$&'()*+,;=~-._")
    query = quote(split.query, safe="/?%:@!$&'()*+,;=~-._[]|")
    return Target(
        url=url,
        scheme=split.scheme,
        host=host,
        port=port,
        authority=shown if default else f"{shown}:{port}",
        path=f"{path}?{query}" if query else path,
    )


def redirected(target: Target, location: str) -> Target:
    """The next hop, which must pass the same checks."""
    _refuse_odd(location)  # joining drops some control characters silently
    try:
        return parse_url(urljoin(target.url, location))
    except ValueError:
        raise BadMedia("malformed URL in a redirect") from None


def _refuse_odd(url: str) -> None:
    if len(url) > MAX_URL:
        raise BadMedia(f"URL longer than {MAX_URL} characters")
    if any(c <= " " or c == "\\" or "\x7f" <= c <= "\xa0" for c in url):
        raise BadMedia("URL with a space, a control character or a backslash")


def _host_and_port(netloc: str, scheme: str) -> tuple[str, str, int]:
    match = _NETLOC.fullmatch(netloc)
    if match is None:
        raise BadMedia("malformed host in the URL")
    port = int(match["port"]) if match["port"] else _PORTS[scheme]
    if not 0 < port < 65536:
        raise BadMedia("malformed port in the URL")
    if match["v6"]:
        number = _ipv6(match["v6"])
        return number, f"[{number}]", port
    name = host_name(match["name"])
    return name, name, port


def _ipv6(text: str) -> str:
    try:
        return str(IPv6Address(text))
    except ValueError:
        raise BadMedia("malformed host in the URL") from None


def host_name(name: str) -> str:
    """Lower case, ASCII by IDNA. BadMedia for what cannot be one; a number in dots is one."""
    try:
        name = name.encode("idna").decode("ascii").lower()
    except UnicodeError:
        raise BadMedia("malformed host in the URL") from None
    if len(name) > 253 or not _NAME.fullmatch(name):
        raise BadMedia("malformed host in the URL")
    return name
