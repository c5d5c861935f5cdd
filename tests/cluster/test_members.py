"""Workers come and go while requests run: join, drain, die, come back; two gateways share them.

One cluster of roles by hand lives through all of it, in this order.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
import torch
from safetensors.torch import load_file, save_file

from epd.cli.main import main
from tests.cluster.by_hand import START_S, Role, Roles
from tests.cluster.clients import Asking, Outcome, Question, ask
from tests.cluster.running import Cluster, eventually
from tests.cluster.slow_site import PATH, slow_site

LONG = Question((1,), "Describe", max_tokens=700, options='{"ignore_eos": true}')
SHORT = Question((2,), "Hello there", max_tokens=12)
TEXT = Question((), "Hello there", max_tokens=12)

SETTINGS = (
    "language.kv_tokens=4096",
    "wire.heartbeat_s=0.2",
    "wire.dead_after_s=20",
    "drain_s=120",
    "media.allow_private_addresses=true",
    "media.image.timeout_s=60",
)


class Scene:
    """The cluster, and what it answers when nothing happens to it."""

    def __init__(self, roles: Roles) -> None:
        self.roles = roles
        self.gateways = [self.roles.gateway(name) for name in ("gateway-a", "gateway-b")]
        self.workers = {
            name: self.roles.worker(name.split("-")[0], name)
            for name in ("encode-0", "prefill-0", "decode-0")
        }
        for gateway in self.gateways:
            self.roles.wait_for(*self.workers, url=gateway.ready["url"])
        self.right = {q: ask(self.front(), q, stream=False).text for q in (LONG, SHORT, TEXT)}

    def front(self, gateway: int = 0) -> Cluster:
        """As clients see it."""
        role = self.gateways[gateway]

        class Front:
            model = self.roles.model
            url = role.ready["url"]

        return cast(Cluster, Front)

    def start(self, name: str) -> Role:
        self.workers[name] = self.roles.worker(name.split("-")[0], name)
        return self.workers[name]

    def check(self) -> None:
        """It answers as ever."""
        self.check_right(ask(self.front(), SHORT, stream=False))

    def check_right(self, outcome: Outcome) -> None:
        """All of the answer, and no other word."""
        assert outcome.complete, outcome
        assert outcome.text == self.right[outcome.question]


@pytest.fixture(scope="module")
def scene(path: Path) -> Iterator[Scene]:
    roles = Roles(path, *SETTINGS)
    try:
        yield Scene(roles)
    finally:
        roles.close()


def test_two_gateways_share_the_workers(scene: Scene) -> None:
    """Each owns its requests; both get what they would get alone."""
    with (
        Asking(scene.front(0), LONG) as first,
        Asking(scene.front(1), LONG) as second,
        Asking(scene.front(1), SHORT) as third,
    ):
        pass
    for asking in (first, second, third):
        scene.check_right(asking.outcome)


def test_the_command_shows_them(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--url", scene.roles.url]) == 0
    about, _, *rows = capsys.readouterr().out.splitlines()
    assert "at gateway-a: ready" in about
    assert [row.split()[0] for row in rows] == ["decode-0", "encode-0", "prefill-0"]
    assert len({row.split()[4] for row in rows}) == 1
    assert main(["status", "chatcmpl-none", "--url", scene.roles.url]) == 2
    assert "no request 'none' is running here" in capsys.readouterr().err


def test_a_worker_that_joined_takes_over_from_one_that_is_drained_by_command(
    scene: Scene, capsys: pytest.CaptureFixture[str]
) -> None:
    """The running stream ends where it began, at either gateway; then the worker leaves."""
    scene.start("decode-1")
    for gateway in scene.gateways:
        scene.roles.wait_for(*scene.workers, url=gateway.ready["url"])
    # Ties go to the worker used longest ago, which is the new one: both have a stream then.
    with Asking(scene.front(0), LONG) as first, Asking(scene.front(0), LONG) as second:
        for asking in (first, second):
            assert asking.outcome.first_token.wait(60)
        assert main(["drain", "decode-0", "--url", scene.roles.url]) == 0
        other = scene.gateways[1].ready["url"]
        draining = {"decode-0": "draining"}.items()
        eventually(lambda: draining <= scene.roles.states(other).items(), "both gateways know")
        assert not first.outcome.ended_at or not second.outcome.ended_at
    for asking in (first, second):
        scene.check_right(asking.outcome)
    assert scene.workers.pop("decode-0").ended() == 0
    scene.roles.wait_for(*scene.workers)
    scene.check()


def test_what_is_not_finished_at_the_deadline_goes_elsewhere(scene: Scene) -> None:
    """A worker of the same name comes back, and takes the stream over from its place."""
    scene.start("decode-0")
    scene.roles.wait_for(*scene.workers)
    with Asking(scene.front(0), LONG) as first, Asking(scene.front(0), LONG) as second:
        for asking in (first, second):
            assert asking.outcome.first_token.wait(60)
        assert scene.roles.drain("decode-1", 0.0).status_code == 200
        assert scene.workers.pop("decode-1").ended() == 0
        assert not first.outcome.ended_at or not second.outcome.ended_at
    for asking in (first, second):
        scene.check_right(asking.outcome)
    scene.check()


def test_a_signal_drains_an_encoder_in_the_middle_of_its_fetch(scene: Scene) -> None:
    """Its client hears of the file, and nothing of the worker that leaves."""
    answer = threading.Event()
    with slow_site(answer) as site:
        question = Question((), "What is it?", url=f"{site.url}{PATH}")
        with Asking(scene.front(), question) as asking:
            eventually(lambda: site.seen, "it fetches")
            scene.workers["encode-0"].terminate()
            eventually(lambda: scene.roles.states()["encode-0"] == "draining", "it drains")
            scene.start("encode-1")
            eventually(lambda: scene.roles.states().get("encode-1"), "another is there", START_S)
            assert scene.workers["encode-0"].process.poll() is None
            scene.check()
            answer.set()
    assert asking.outcome.status == 422, asking.outcome
    assert scene.workers.pop("encode-0").ended() == 0
    scene.roles.wait_for(*scene.workers)


def test_a_worker_that_dies_comes_back_under_its_name(scene: Scene) -> None:
    scene.start("prefill-1")
    scene.roles.wait_for(*scene.workers)
    with Asking(scene.front(0), LONG) as asking:
        assert asking.outcome.first_token.wait(60)
        scene.workers["prefill-0"].process.kill()
        scene.start("prefill-0")
    scene.check_right(asking.outcome)
    scene.roles.wait_for(*scene.workers)
    scene.check()


@pytest.mark.slow
def test_a_new_revision_takes_over_while_the_old_one_drains(
    scene: Scene, path: Path, tmp_path: Path
) -> None:
    """No stream is cut, none is of two models, and from then on the new one answers."""
    revision = tmp_path / path.name
    shutil.copytree(path, revision)
    weights = load_file(revision / "model.safetensors")
    flipped = {name: torch.flip(tensor, (0,)) for name, tensor in weights.items()}
    save_file(flipped, revision / "model.safetensors", {"format": "pt"})
    olds = [name for name in scene.workers if not name.startswith("encode")]
    scene.roles.worker("fused", "fused-new", model=revision)
    scene.roles.wait_for(*scene.workers, "fused-new")
    pools = {row["name"]: row["pool"] for row in scene.roles.rows()}
    assert len(set(pools.values())) == 2 and pools["fused-new"] != pools[olds[0]]
    with Asking(scene.front(), LONG) as asking:
        assert asking.outcome.first_token.wait(60)
        for old in olds:
            assert scene.roles.drain(old, 30).status_code == 200
        outcome = ask(scene.front(), TEXT, stream=True)
        assert outcome.complete and outcome.text != scene.right[TEXT]
    scene.check_right(asking.outcome)
    for old in olds:
        assert scene.workers.pop(old).ended() == 0
