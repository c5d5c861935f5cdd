"""What images and containers have to have, read from docker/ without an engine."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import epd
from epd.cli.main import build_parser
from epd.config import load_config
from tests.deploy.overlays import ROOT

DOCKER = ROOT / "docker"
COMPOSE = yaml.safe_load((DOCKER / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
ROLES = {"gateway", "encode-0", "encode-1", "prefill-0", "decode-0"}
OURS = {name for name, one in SERVICES.items() if one["image"].startswith("epd:")}

each_image = pytest.mark.parametrize("kind", ["cpu", "cuda"])
each_service = pytest.mark.parametrize("name", sorted(SERVICES))
each_role = pytest.mark.parametrize("name", sorted(ROLES))


def instructions(kind: str) -> list[tuple[str, str]]:
    """(INSTRUCTION, rest), comments left out and continued lines joined."""
    text = (DOCKER / f"Dockerfile.{kind}").read_text()
    text = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    lines = re.sub(r"\\\n\s*", " ", text).splitlines()
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines if line)]


def all_of(kind: str, word: str) -> list[str]:
    return [rest for name, rest in instructions(kind) if name == word]


# ---- images


@each_image
def test_an_image_is_built_in_two_stages_from_pinned_bases(kind: str) -> None:
    first, second = all_of(kind, "FROM")
    assert first == f"{second} AS build"
    assert re.search(r":\d+\.\d+\.\d+-", second)
    assert [one for one in all_of(kind, "COPY") if one.startswith("--from")] == [
        "--from=build /opt/epd /opt/epd"
    ]


@each_image
def test_an_image_runs_as_a_user_without_rights(kind: str) -> None:
    """The same number as in the pods."""
    assert all_of(kind, "USER") == ["10001:10001"]
    assert "useradd --uid 10001 " in " ".join(all_of(kind, "RUN"))
    assert instructions(kind)[-1][0] == "CMD"


@each_image
def test_packages_of_an_image_are_pinned(kind: str) -> None:
    """Debian's by version, Python's by constraints.txt."""
    for command in all_of(kind, "RUN"):
        for part in re.findall(r"apt-get install ([^&]+)", command):
            packages = [word for word in part.split() if not word.startswith("--")]
            assert all("=" in package for package in packages), packages
            assert "rm -rf /var/lib/apt/lists/*" in command
    script = (DOCKER / "install.sh").read_text()
    assert "--constraint constraints.txt" in script
    assert f"RUN docker/install.sh /opt/epd {kind}" in (DOCKER / f"Dockerfile.{kind}").read_text()


@each_image
def test_an_image_says_whether_it_is_healthy_and_is_stopped_by_a_signal(kind: str) -> None:
    [check] = all_of(kind, "HEALTHCHECK")
    assert "127.0.0.1:8000/health" in check
    assert all_of(kind, "ENTRYPOINT") == ['["tini", "--", "epd"]']
    [command] = all_of(kind, "CMD")
    build_parser().parse_args(yaml.safe_load(command))


@each_image
def test_what_is_copied_is_there_and_not_ignored(kind: str) -> None:
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().split() if line[0] == "!"}
    assert set(sources(kind)) <= kept
    assert all((ROOT / source).exists() for source in sources(kind))


def sources(kind: str) -> Iterator[str]:
    for copy in all_of(kind, "COPY"):
        if not copy.startswith("--from"):
            yield from copy.split()[:-1]


def test_the_readme_tags_images_as_manifests_call_them() -> None:
    text = (DOCKER / "README.md").read_text()
    assert f"docker/Dockerfile.cpu -t epd:{epd.__version__} .\n" in text
    assert f"docker/Dockerfile.cuda -t epd-cuda:{epd.__version__} .\n" in text


# ---- containers


@each_role
def test_a_container_gets_arguments_and_keys_that_epd_has(name: str) -> None:
    args = build_parser().parse_args(SERVICES[name]["command"])
    assert args.config == "/etc/epd/epd.yaml"
    overrides = [one for one in args.overrides if not one.startswith("listen=")]
    config = load_config(DOCKER / "epd.yaml", overrides)
    assert config.wire.curve_dir == Path("/keys")
    if name == "gateway":
        return
    assert config.name == SERVICES[name]["hostname"] == name
    assert config.gateways == (f"tcp://{SERVICES['gateway']['hostname']}:7400",)
    assert SERVICES[name]["healthcheck"]["test"][-1] == f"{config.probe_dir}/ready"


@each_role
def test_a_container_listens_on_its_own_name_and_fixed_ports(name: str) -> None:
    [listen] = [one for one in SERVICES[name]["command"] if one.startswith("--set=listen=")]
    first = 7400 if name == "gateway" else 7410
    assert listen == f"--set=listen=tcp://{SERVICES[name]['hostname']}:{first}-{first + 1}"


@each_role
def test_a_container_may_drain_before_it_is_killed(name: str) -> None:
    drain_s = load_config(DOCKER / "epd.yaml").drain_s
    assert int(SERVICES[name]["stop_grace_period"].removesuffix("s")) > drain_s + 5


@each_service
def test_a_container_has_no_rights_and_a_limit(name: str) -> None:
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["mem_limit"]
    assert "privileged" not in service and "network_mode" not in service or name == "keys"
    if name in OURS:
        assert service["read_only"] is True


@each_service
def test_an_image_in_compose_is_pinned(name: str) -> None:
    _, _, tag = SERVICES[name]["image"].rpartition(":")
    assert re.fullmatch(r"v?\d+\.\d+\.\d+", tag)
    assert name not in OURS or tag == epd.__version__


@each_service
def test_only_this_machine_reaches_what_is_published(name: str) -> None:
    for port in SERVICES[name].get("ports", ()):
        assert port.startswith("127.0.0.1:")


@each_service
def test_what_is_mounted_is_there(name: str) -> None:
    for mount in SERVICES[name].get("volumes", ()):
        source = mount.partition(":")[0]
        if source.startswith("."):
            assert (DOCKER / source).is_file(), source
        else:
            assert source in COMPOSE["volumes"] or source.startswith("${MODEL")


def test_prometheus_scrapes_the_gateway_and_reads_the_rules() -> None:
    config = yaml.safe_load((DOCKER / "prometheus.yaml").read_text())
    [job] = config["scrape_configs"]
    assert job["static_configs"] == [{"targets": ["gateway:8000"]}]
    assert job["honor_labels"] is True
    [rules] = config["rule_files"]
    assert any(mount.endswith(f":{rules}:ro") for mount in SERVICES["prometheus"]["volumes"])
