"""API keys in the configuration: read once, kept as hashes."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from epd.config import ApiKey, GatewayConfig, dump_config, load_config
from epd.errors import ConfigError

SECRET = "sk-a-very-secret-key"
HASH = hashlib.sha256(SECRET.encode()).hexdigest()


@pytest.mark.parametrize(
    "entry", [SECRET, f'{{"key": "{SECRET}"}}', f'{{"sha256": "{HASH}", "tenant": "team-a"}}']
)
def test_only_the_hash_of_a_key_is_kept_and_printed(entry: str) -> None:
    """`epd check` prints this text, and `epd serve` writes it for its children."""
    config = load_config(None, [f"gateway.api_keys=[{entry}]"])
    assert [key.sha256 for key in config.gateway.api_keys] == [HASH]
    text = dump_config(config)
    assert SECRET not in text and HASH in text


def test_the_printed_configuration_reads_back_to_the_same_keys(tmp_path: Path) -> None:
    config = load_config(None, [f"gateway.api_keys=[{SECRET}, {{key: other, max_requests: 2}}]"])
    (tmp_path / "c.yaml").write_text(dump_config(config))
    assert load_config(tmp_path / "c.yaml") == config


@pytest.mark.parametrize(
    "entry",
    [
        "{}",
        '""',
        "12",
        "{key: 12}",
        '"a b"',
        '"\u00e9"',
        "k" * 257,
        "{sha256: abc}",
        f"{{key: a, sha256: {HASH}}}",
        "{key: a, tenant: 'a/b'}",
        "{key: a, max_requests: 0}",
        "{key: a, tokens_per_minute: 0}",
        "{key: a, tokens: 3}",
        "{key: a}, a",
    ],
)
def test_a_key_that_makes_no_sense_is_refused(entry: str) -> None:
    with pytest.raises(ConfigError, match=r"gateway\.api_keys"):
        load_config(None, [f"gateway.api_keys=[{entry}]"])


def test_keys_come_from_a_file_of_their_own_too(tmp_path: Path) -> None:
    """In the same form; those of the configuration stay."""
    file = tmp_path / "keys.yaml"
    file.write_text(f"- {SECRET}\n- {{key: second, tenant: b, tokens_per_minute: 10}}\n")
    keys = GatewayConfig(api_keys=(ApiKey(key="first"),), api_keys_file=str(file)).all_keys()  # type: ignore[call-arg]
    assert [key.tenant for key in keys] == ["", "", "b"]
    assert keys[1].sha256 == HASH and keys[2].tokens_per_minute == 10


@pytest.mark.parametrize(
    "text", ["", "a: b", f"[{SECRET}, {SECRET}]", f"- {SECRET}\n- {{key: 'a b'}}", "- ["]
)
def test_a_file_of_keys_that_makes_no_sense_is_refused_and_not_quoted(
    tmp_path: Path, text: str
) -> None:
    file = tmp_path / "keys.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"keys\.yaml cannot be used") as caught:
        GatewayConfig(api_keys_file=str(file)).all_keys()
    assert SECRET not in caught.value.message


def test_a_file_of_keys_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="FileNotFoundError"):
        GatewayConfig(api_keys_file=str(tmp_path / "none")).all_keys()
