"""A file of hosts, and the processes that it means."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from epd.config import load_config
from epd.errors import ConfigError
from launch.cluster import read_cluster
from launch.plan import alone, chosen, processes

TREE: dict[str, Any] = {
    "model": "/models/m",
    "settings": ["wire.insecure=true"],
    "hosts": [
        {"host": "admin@a", "address": "10.0.0.1", "roles": {"gateway": 1, "encode": 2}},
        {"host": "b", "address": "fd00::2", "roles": {"prefill": 1, "encode": 1}},
        {"host": "c", "roles": {"decode": 2, "gateway": 1}},
    ],
}


def file(folder: Path, **changes: Any) -> Path:
    found = folder / "cluster.yaml"
    found.write_text(yaml.safe_dump({**TREE, **changes}, sort_keys=False))
    return found


def test_names_are_counted_over_all_hosts_and_gateways_come_first(tmp_path: Path) -> None:
    found = processes(read_cluster(file(tmp_path)))
    assert [(process.name, process.host.host) for process in found] == [
        ("gateway-0", "admin@a"),
        ("gateway-1", "c"),
        ("encode-0", "admin@a"),
        ("encode-1", "admin@a"),
        ("prefill-0", "b"),
        ("encode-2", "b"),
        ("decode-0", "c"),
        ("decode-1", "c"),
    ]


def test_each_listens_at_its_host_and_workers_know_all_gateways(tmp_path: Path) -> None:
    found = {p.name: p.config for p in processes(read_cluster(file(tmp_path)))}
    assert found["gateway-1"].listen == "tcp://c:7400-7401"
    assert found["prefill-0"].listen == "tcp://[fd00::2]:7402-7499"
    assert found["decode-1"].gateways == ("tcp://10.0.0.1:7400", "tcp://c:7400")
    named = read_cluster(file(tmp_path, gateways=["gateways.example"]))
    assert processes(named)[-1].config.gateways == ("tcp://gateways.example:7400",)


def test_a_setting_is_overridden_by_that_of_the_host_and_of_the_crew(tmp_path: Path) -> None:
    hosts = [
        {
            "host": "a",
            "address": "127.0.0.1",
            "settings": ["threads=2"],
            "roles": {
                "gateway": 1,
                "encode": [{"count": 1}, {"count": 2, "settings": ["threads=3"]}],
                "fused": 1,
            },
        }
    ]
    cluster = read_cluster(file(tmp_path, hosts=hosts, settings=["threads=1"]), ["dtype=float32"])
    found = {p.name: p.config for p in processes(cluster)}
    assert [found[f"encode-{n}"].threads for n in range(3)] == [2, 3, 3]
    assert {config.dtype for config in found.values()} == {"float32"}


def test_the_file_of_a_process_loads_to_its_configuration(tmp_path: Path) -> None:
    settings = ["wire.insecure=true", "gateway.api_keys=[sk-1]", "media.image.max_pixels=99"]
    for process in processes(read_cluster(file(tmp_path, settings=settings))):
        written = tmp_path / "process.yaml"
        written.write_text(process.text)
        assert load_config(written) == process.config
        assert "sk-1" not in process.text


def test_some_are_chosen_by_name_and_those_without_another_are_known(tmp_path: Path) -> None:
    every = processes(read_cluster(file(tmp_path)))
    assert [p.name for p in chosen(every, ["decode-1", "gateway-0"])] == ["gateway-0", "decode-1"]
    assert [p.name for p in alone(every, every)] == ["prefill-0"]
    with pytest.raises(ConfigError, match="no process is called decode-7; there are gateway-0"):
        chosen(every, ["decode-7"])


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"model": "models/m"}, "model: 'models/m' is no absolute path"),
    ({"modle": "/m"}, "modle: Extra inputs"),
    ({"ports": "7400"}, "ports: '7400' is no range of ports"),
    (
        {"ports": "7400-7404"},
        r"admin@a needs 2 x \(2 workers \+ 1 gateway\) = 6, and 7400-7404 has 5",
    ),
    ({"hosts": []}, "hosts: Tuple should have at least 1 item"),
    ({"hosts": [{"host": "-oProxyCommand=x", "roles": {"gateway": 1}}]}, "hosts.0.host"),
    ({"hosts": [{"host": "a", "roles": {"encode": 1}}]}, "none has a gateway"),
    ({"hosts": [{"host": "a", "roles": {"gateway": 2}}]}, "a: 2 gateways; one on each host"),
    ({"hosts": [{"host": "a", "roles": {"gateway": 1}}] * 2}, "hosts: a is there twice"),
    (
        {"hosts": [{"host": "a", "roles": {"gateway": {"count": 1, "gpus": ["0", "1"]}}}]},
        "gpus: 1 processes and 2 words",
    ),
    ({"hosts": [{"host": "a", "roles": {"gateway": 1, "encode": 1}}]}, "serve no request"),
    ({"settings": []}, "10.0.0.1 is no loopback address, so gateway-0 needs"),
    ({"settings": ["dtypo=1"]}, "dtypo: unknown key"),
]


@pytest.mark.parametrize(("changes", "words"), WRONG)
def test_what_cannot_work_is_refused_by_name(
    changes: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=words):
        processes(read_cluster(file(tmp_path, **changes)))
