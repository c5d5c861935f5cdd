"""Every family, modality and mixture, through HTTP, says what Hugging Face says, in fp32."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import timeseries
from tests.checkpoints.omni import THINKER
from tests.cluster.cases import Client
from tests.cluster.families import ROWS
from tests.cluster.given import Request
from tests.cluster.ready_made import merging
from tests.cluster.running import Cluster
from tests.reference import Reference, Video
from tests.reference_series import SeriesReference

MAX_TOKENS = 12

FAST = (
    "qwen2_5_omni-2E1P1D",
    "internvl-1E1P1D",
    "qwen2_audio-1E1P1D",
    "patch_series-1E1P1D",
)
"""Clusters that are asked whenever tests run; the others when there is time."""

SLOW = ("qwen2_5_omni_inside", "qwen3_omni_moe_inside")
"""The same towers and layers as their thinkers', read from another folder."""

SETTINGS = (
    "media.allow_private_addresses=true",
    "media.enable_embeds=true",
    "language.max_step_tokens=256",
)


@dataclass(frozen=True)
class Answer:
    """What must be equal."""

    prompt_tokens: int
    token_ids: list[int]


class Right:
    """One family's right answers, each computed once."""

    def __init__(self, family: str, path: Path) -> None:
        self.reference: Any = _reference(family, path)
        self._row = ROWS[family]
        self.answer: Callable[[str], Answer] = cache(self._answer)

    def _answer(self, what: str) -> Answer:
        request = self._row[what]
        return self.of(request, request.items(self.reference))

    def of(self, request: Request, items: list[Any]) -> Answer:
        prompt, new = self.reference.generate(request.messages(), items, MAX_TOKENS, request.asked)
        return Answer(len(prompt), new)


def _reference(family: str, path: Path) -> Any:
    if family == "patch_series":
        return SeriesReference(path)
    inside = family.endswith("_inside")
    return Reference(path, path.parent / THINKER if inside else None)


@dataclass(frozen=True)
class Served:
    """A family in a live cluster, and what it must say."""

    family: str
    client: Client
    right: Right

    def ask(self, what: str) -> Answer:
        request = ROWS[self.family][what]
        sent = request.sent(self.right.reference)
        answer = self.client.ask(sent, max_tokens=MAX_TOKENS, **request.body)
        return Answer(answer.prompt_tokens, answer.token_ids)


@pytest.fixture(scope="module")
def right_of(path_of: Callable[[str], Path]) -> Iterator[Callable[[str], Right]]:
    known: dict[str, Right] = {}

    def get(family: str) -> Right:
        if family not in known:
            known.clear()  # one model at a time
            known[family] = Right(family, path_of(family))
        return known[family]

    yield get


@pytest.fixture(scope="module")
def served(
    request: pytest.FixtureRequest,
    path_of: Callable[[str], Path],
    right_of: Callable[[str], Right],
) -> Iterator[Served]:
    family, topology = request.param
    cluster = Cluster(path_of(family), topology, *SETTINGS, env=timeseries.environment())
    client = Client(cluster)
    yield Served(family, client, right_of(family))
    client.close()
    assert cluster.stop() == 0


def _clusters() -> list[Any]:
    found = []
    for family in ROWS:
        for topology in ("1E1P1D", "2E1P1D"):
            name = f"{family}-{topology}"
            marks = () if name in FAST else pytest.mark.slow
            found.append(pytest.param((family, topology), id=name, marks=marks))
    return found


@pytest.mark.parametrize("served", _clusters(), indirect=True, scope="module")
def test_every_request_equals_generate(served: Served, subtests: pytest.Subtests) -> None:
    for what in ROWS[served.family]:
        with subtests.test(what):
            assert served.ask(what) == served.right.answer(what)


@pytest.mark.parametrize("served", _clusters(), indirect=True, scope="module")
def test_all_at_once_equal_generate(served: Served) -> None:
    """Rows, positions and KV of one are not those of another."""
    row = ROWS[served.family]
    with ThreadPoolExecutor(len(row)) as threads:
        for what, answer in zip(row, threads.map(served.ask, row), strict=True):
            assert answer == served.right.answer(what), what


# ---- negative controls: a cluster that computed any of this would have failed above


def zeroed(rows: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(rows)


def misaligned(rows: torch.Tensor) -> torch.Tensor:
    """As if a copy had begun one value too late. (Whole rows in another order: tests/models.)"""
    return rows.roll(1, dims=1)


MODALITIES = ("image", "video", "audio", "time_series")


SHOWN = {name.rpartition("-")[0] for name in FAST}
ALONE = [
    pytest.param(family, marks=() if family in SHOWN else pytest.mark.slow)
    for family in ROWS
    if family not in SLOW
]
"""With each cluster that is asked, what it would have said if it were wrong."""


def alone(what: str) -> list[Any]:
    """Those that are asked this."""
    return [param for param in ALONE if what in ROWS[str(param.values[0])]]


@pytest.mark.parametrize("fault", [zeroed, misaligned])
@pytest.mark.parametrize("family", ALONE)
def test_other_rows_give_another_answer(
    family: str, fault: Callable[[torch.Tensor], torch.Tensor], right_of: Callable[[str], Right]
) -> None:
    right = right_of(family)
    for what in [modality for modality in MODALITIES if modality in ROWS[family]]:
        request = ROWS[family][what]
        with merging(fault):
            wrong = right.of(request, request.items(right.reference))
        assert wrong.prompt_tokens == right.answer(what).prompt_tokens
        assert wrong.token_ids != right.answer(what).token_ids, what


@pytest.mark.parametrize("family", alone("video"))
def test_other_frames_give_another_answer(family: str, right_of: Callable[[str], Right]) -> None:
    right = right_of(family)
    request = ROWS[family]["video"]
    [video] = request.items(right.reference)
    assert isinstance(video, Video)
    for other in (video.frames[::-1].copy(), video.frames.repeat(2, axis=0)[: len(video.frames)]):
        wrong = right.of(request, [replace(video, frames=other)])
        assert wrong.prompt_tokens == right.answer("video").prompt_tokens
        assert wrong.token_ids != right.answer("video").token_ids


@pytest.mark.parametrize("family", alone("video with sound"))
def test_sound_that_is_dropped_gives_another_answer(
    family: str, right_of: Callable[[str], Right]
) -> None:
    right = right_of(family)
    request = ROWS[family]["video with sound"]
    [video] = request.items(right.reference)
    assert isinstance(video, Video) and video.sound is not None
    heard = right.answer("video with sound")
    assert right.of(request, [replace(video, sound=None)]) != heard
    assert right.answer("sound that nobody wants").prompt_tokens < heard.prompt_tokens
    silent = right.of(request, [replace(video, sound=0 * video.sound)])
    assert silent.prompt_tokens == heard.prompt_tokens
    assert silent.token_ids != heard.token_ids


@pytest.mark.parametrize("family", alone("fewer pixels"))
def test_a_wish_for_the_processor_changes_the_answer(
    family: str, right_of: Callable[[str], Right]
) -> None:
    """And so do wishes about frames."""
    right = right_of(family)
    large, small = right.answer("a large image"), right.answer("fewer pixels")
    assert small.prompt_tokens < large.prompt_tokens
    all_frames = replace(ROWS[family]["fewer frames"], body={})
    [video] = all_frames.items(right.reference)
    assert isinstance(video, Video) and len(video.indices) == 6
