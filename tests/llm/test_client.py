"""Many requests at once: their order, and what becomes of them when one fails."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest

from epd.errors import BadRequest, Overloaded, Unavailable
from epd.llm import client as client_module
from epd.llm.client import MOST_TRIES, Body, Client
from tests.llm.stub import Answer, Asked, serving


def bodies(num: int) -> list[Body]:
    def make(number: int) -> Body:
        return lambda: {"number": number}

    return [make(number) for number in range(num)]


@contextmanager
def asking(answer: Callable[[Asked], Answer | None]) -> Iterator[Client]:
    with serving(answer) as url:
        client = Client(url)
        try:
            yield client
        finally:
            client.close()
            client.close()


def refused(status: int, message: str, **headers: str) -> Answer:
    error = {"message": message, "type": "t", "param": "temperature", "code": "c"}
    return status, {"error": error}, headers


def test_answers_come_in_the_order_of_the_prompts_not_of_their_ends() -> None:
    second = threading.Event()

    def answer(asked: Asked) -> Answer:
        if asked.body["number"] == 0:
            assert second.wait(120)
        second.set()
        return 200, asked.body, {}

    with asking(answer) as client:
        found = client.post_all("/v1/completions", bodies(5))
    assert [one["number"] for one in found] == list(range(5))


def test_progress_counts_every_answer() -> None:
    seen: list[int] = []

    class Bar:
        def update(self, n: int = 1) -> None:
            seen.append(n)

    with asking(lambda asked: (200, asked.body, {})) as client:
        client.post_all("/x", bodies(3), nullcontext(Bar()))
        assert client.post_all("/x", []) == []
    assert seen == [1, 1, 1]


def test_no_room_is_no_error_until_it_stays_so() -> None:
    tries: list[int] = []

    def answer(asked: Asked) -> Answer:
        tries.append(1)
        if len(tries) < 3:
            return refused(429, "no worker has room", **{"retry-after": "0"})
        return 200, asked.body, {}

    with asking(answer) as client:
        assert client.post_all("/x", bodies(1)) == [{"number": 0}]
    assert len(tries) == 3


def test_who_never_gets_room_is_told() -> None:
    tries: list[int] = []

    def answer(_: Asked) -> Answer:
        tries.append(1)
        return refused(429, "no worker has room", **{"retry-after": "0"})

    with asking(answer) as client, pytest.raises(Overloaded, match="no worker has room"):
        client.post_all("/x", bodies(1))
    assert len(tries) == MOST_TRIES


def test_an_error_is_that_of_the_server_and_names_its_prompt_and_the_rest_is_cancelled() -> None:
    began, left = threading.Event(), threading.Event()

    def answer(asked: Asked) -> Answer | None:
        if asked.body["number"] == 0:
            began.set()
            asked.wait_until_left()
            left.set()
            return None
        assert began.wait(120)
        return refused(400, "temperature: too hot")

    with asking(answer) as client:
        with pytest.raises(BadRequest, match="prompt 1: temperature: too hot") as caught:
            client.post_all("/x", bodies(2))
        assert (caught.value.param, caught.value.code) == ("temperature", "c")
        assert left.wait(120)


def test_one_prompts_error_needs_no_number() -> None:
    with (
        asking(lambda _: refused(400, "temperature: too hot")) as client,
        pytest.raises(BadRequest, match="^temperature"),
    ):
        client.post_all("/x", bodies(1))


def test_ctrl_c_cancels_what_runs() -> None:
    left = threading.Event()

    def answer(asked: Asked) -> None:
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        asked.wait_until_left()
        left.set()

    # Processes that run tests side by side take no notice of it by themselves.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with asking(answer) as client:
            with pytest.raises(KeyboardInterrupt):
                client.post_all("/x", bodies(1))
            assert left.wait(120)
    finally:
        signal.signal(signal.SIGINT, before)


def test_not_more_than_so_many_are_on_their_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "IN_FLIGHT", 2)
    running, most, lock = [0], [0], threading.Lock()
    full = threading.Barrier(2)

    def answer(asked: Asked) -> Answer:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        full.wait(120)
        with lock:
            running[0] -= 1
        return 200, asked.body, {}

    with asking(answer) as client:
        assert len(client.post_all("/x", bodies(6))) == 6
    assert most == [2]


def test_a_server_that_is_gone_or_talks_nonsense_is_unavailable() -> None:
    with asking(lambda _: (502, b"<html>", {})) as client, pytest.raises(Unavailable, match="502"):
        client.post_all("/x", bodies(1))
    with asking(lambda _: None) as client, pytest.raises(Unavailable, match="does not answer"):
        client.post_all("/x", bodies(1))


def test_what_json_has_no_word_for_is_refused() -> None:
    def body() -> dict[str, Any]:
        return {"temperature": float("nan")}

    with asking(lambda _: None) as client, pytest.raises(BadRequest, match="cannot say"):
        client.post_all("/x", [body])
