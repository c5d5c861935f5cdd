"""Which URLs media may be read from, judged by the URL alone: nothing is resolved or opened.

An operator's domain is a host name, which allows exactly that host, or `.example.org`, which allows
every host below it and not itself. Ports and schemes are not told apart.
"""

from __future__ import annotations

from epd.config import MediaConfig
from epd.errors import BadMedia, ConfigError
from epd.media.local import is_file_url, local_path
from epd.media.url import Target, host_name, parse_url


class Policy:
    """The operator's rules. ConfigError for a domain that is none."""

    def __init__(self, config: MediaConfig) -> None:
        self._local = config.allowed_local_path is not None
        self._domains = tuple(map(_domain, config.allowed_domains))

    def check(self, url: str) -> None:
        """BadMedia unless it is an http, https or file: URL that may be read, for all it says."""
        if not is_file_url(url):
            self.check_hop(parse_url(url))
        elif self._local:
            local_path(url)
        else:
            raise BadMedia("local files are not allowed")

    def check_hop(self, target: Target) -> None:
        """BadMedia where the host is none of the allowed ones; asked again on every redirect."""
        host = target.host.removesuffix(".")
        if self._domains and not any(_covers(domain, host) for domain in self._domains):
            raise BadMedia("domain not allowed")


def _covers(domain: str, host: str) -> bool:
    return host.endswith(domain) if domain.startswith(".") else host == domain


def _domain(entry: str) -> str:
    dot = "." if entry.startswith(".") else ""
    try:
        return dot + host_name(entry.removeprefix(".")).removesuffix(".")
    except BadMedia:
        raise ConfigError(f"media.allowed_domains: {entry!r} is not a host name") from None
