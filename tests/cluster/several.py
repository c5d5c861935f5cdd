"""A cluster on hosts of its own: network namespaces, CURVE, names by DNS, `launch.multi_node`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from epd.cli.main import main as epd
from launch.multi_node.__main__ import main as multi_node
from tests.cluster.front import Front
from tests.cluster.running import data_url, picture
from tests.hosts import SWITCH, Hosts, why_not
from tests.names import Names, name_server
from tests.reference import Reference

ROOT = Path(__file__).parents[2]
NAME_SERVER = "10.77.0.254"
SETTINGS = (
    "dtype=float32",
    "threads=1",
    "language.kv_tokens=16384",
    "wire.shm_bytes=0",
    "wire.heartbeat_s=0.2",
    "wire.dead_after_s=3",
    "gateway.host=0.0.0.0",
)
Roles = Mapping[str, Mapping[str, int]]


@dataclass(frozen=True)
class Several:
    """Its hosts by name, its gateway as clients on its own host see it, and the hosts' file."""

    hosts: Hosts
    front: Front
    file: Path
    names: Names

    def answers_as(self, reference: Reference) -> None:
        """A question about a picture gets Hugging Face's answer. To be called on the front host."""
        image = picture(140, 112)
        content = [{"type": "image"}, {"type": "text", "text": "What is it?"}]
        _, new = reference.generate([{"role": "user", "content": content}], [image], 16)
        shown = {"type": "image_url", "image_url": {"url": data_url(image)}}
        messages = [{"role": "user", "content": [shown, content[1]]}]
        limits = {"max_tokens": 16, "temperature": 0}
        answer = self.front.post({"model": self.front.model, "messages": messages, **limits}).json()
        text = reference.processor.tokenizer.decode(new, skip_special_tokens=True)
        assert answer["choices"][0]["message"]["content"] == text


@contextmanager
def several(
    path: Path, roles: Roles, folder: Path, *settings: str, own_memory: bool = False
) -> Iterator[Several]:
    """Started, and ended in order. The gateway is on the host `front`.

    With `own_memory` hosts do not share any either, as little as machines do.
    Skips with the name of what the kernel or the machine lacks.
    """
    if reason := why_not():
        pytest.skip(reason)
    with ExitStack() as stack:
        hosts = Hosts(*roles)
        stack.callback(hosts.close)
        hosts.name_server(NAME_SERVER)
        table = {f"{name}.epd.test": (hosts.address(name),) for name in roles}
        table["gateways.epd.test"] = table["front.epd.test"]
        with hosts.inside(SWITCH):
            names = name_server(NAME_SERVER, table, folder)
        stack.callback(names.close)
        memory = _own_memory(folder) if own_memory else ""
        file = _hosts_file(path, hosts, roles, folder, (*SETTINGS, *settings), memory)
        assert multi_node(["start", str(file)]) == 0
        front = Front(f"http://{hosts.address('front')}:8000", path.name)
        try:
            yield Several(hosts, front, file, names)
        finally:
            ended = multi_node(["stop", str(file)])
        assert ended == 0


def _own_memory(folder: Path) -> str:
    """What stands before a command that is to have a /dev/shm of its own."""
    script = folder / "own-memory"
    script.write_text('#!/bin/sh\nmount -t tmpfs -o size=1g tmpfs /dev/shm && exec "$@"\n')
    script.chmod(0o755)
    return f'"{script}"'


def _hosts_file(
    path: Path, hosts: Hosts, roles: Roles, folder: Path, settings: tuple[str, ...], memory: str
) -> Path:
    """With the cluster's keys, and a stand-in for ssh, beside it."""
    assert epd(["keys", str(folder / "keys")]) == 0
    ssh = folder / "ssh"
    within = " ".join(hosts.command("front")).replace("front", '"$1"')
    ssh.write_text(f'#!/bin/sh\ncd "{folder}/$1" && exec {within} {memory} sh -c "$2"\n')
    ssh.chmod(0o755)
    for name in roles:
        (folder / name).mkdir()
    env = {"PYTHONPATH": str(ROOT)}
    tree = {
        "model": str(path),
        "settings": list(settings),
        "keys": "keys",
        "gateways": ["gateways.epd.test"],
        "ssh": [str(ssh)],
        "hosts": [
            {"host": name, "address": f"{name}.epd.test", "roles": dict(some), "env": env}
            for name, some in roles.items()
        ],
        "python": sys.executable,
    }
    file = folder / "hosts.yaml"
    file.write_text(yaml.safe_dump(tree))
    return file
