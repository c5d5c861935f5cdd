"""Clients that see everything: the status, every event of a stream, and how it ended."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.cluster.front import Front
from tests.cluster.running import image_part, picture

HANGS_S = 240.0
"""Longer than any answer takes: who waits so long would have waited for ever."""


@dataclass(frozen=True, slots=True)
class Question:
    """A chat request: pictures of these seeds, the one behind `url`, then words.

    Greedy, unless `options`, a JSON object in the API's words, say something else.
    """

    pictures: tuple[int, ...]
    words: str
    url: str | None = None
    max_tokens: int = 2000
    options: str = "{}"

    @property
    def num_choices(self) -> int:
        return int(json.loads(self.options).get("n", 1))

    def body(self, model: str, *, stream: bool) -> dict[str, Any]:
        content = [image_part(picture(56 + 28 * (seed % 5), 84, seed)) for seed in self.pictures]
        if self.url is not None:
            content.append({"type": "image_url", "image_url": {"url": self.url}})
        content.append({"type": "text", "text": self.words})
        return {
            "model": model,
            "messages": [{"role": "user", "content": content}],
            "temperature": 0,
            "max_tokens": self.max_tokens,
            "stream": stream,
            **json.loads(self.options),
        }


@dataclass(slots=True)
class Outcome:
    """What one request came to, `texts` by choice."""

    question: Question
    stream: bool
    status: int = 0
    texts: dict[int, str] = field(default_factory=dict)
    finished: set[int] = field(default_factory=set)
    error: dict[str, Any] | None = None
    cut: str = ""
    ended_at: float = 0.0
    told_at: float = 0.0
    longest_pause_s: float = 0.0
    first_token: threading.Event = field(default_factory=threading.Event)

    @property
    def text(self) -> str:
        """Of all choices, in their order."""
        return "\n".join(self.texts[index] for index in sorted(self.texts))

    @property
    def complete(self) -> bool:
        """Every choice has a finish reason."""
        return len(self.finished) == self.question.num_choices

    def add(self, choice: dict[str, Any], text: str | None) -> None:
        """What one object says of one choice."""
        now = time.monotonic()
        if self.told_at:
            self.longest_pause_s = max(self.longest_pause_s, now - self.told_at)
        self.told_at = now
        index = choice["index"]
        self.texts[index] = self.texts.get(index, "") + (text or "")
        if choice["finish_reason"] is not None:
            self.finished.add(index)
        self.first_token.set()


def ask(cluster: Front, question: Question, *, stream: bool) -> Outcome:
    """Ask and wait for the end, whatever it is."""
    outcome = Outcome(question, stream)
    run(cluster, outcome)
    return outcome


def run(cluster: Front, outcome: Outcome) -> None:
    """Fill in the outcome while the answer comes."""
    body = outcome.question.body(cluster.model, stream=outcome.stream)
    url = f"{cluster.url}/v1/chat/completions"
    try:
        with httpx.stream("POST", url, json=body, timeout=HANGS_S, verify=False) as response:
            outcome.status = response.status_code
            kind = response.headers["content-type"].partition(";")[0]
            if kind == "text/event-stream":
                for line in response.iter_lines():
                    _event(outcome, line)
            else:
                _whole(outcome, json.loads(response.read()))
    except httpx.TimeoutException:
        raise AssertionError(f"hangs: {outcome.question}") from None
    except httpx.TransportError as error:
        outcome.cut = str(error) or type(error).__name__
    finally:
        outcome.ended_at = time.monotonic()


def _whole(outcome: Outcome, body: dict[str, Any]) -> None:
    outcome.error = body.get("error")
    if outcome.error is None:
        for choice in body["choices"]:
            outcome.add(choice, choice["message"]["content"])


def _event(outcome: Outcome, line: str) -> None:
    assert not outcome.complete or outcome.error is None
    if not line or line == "data: [DONE]":
        return
    body = json.loads(line.removeprefix("data: "))
    outcome.error = body.get("error")
    for choice in body.get("choices", ()):
        outcome.add(choice, choice["delta"].get("content"))


class Asking:
    """One question on a thread of its own; the block is left when its answer has ended."""

    def __init__(self, cluster: Front, question: Question, *, stream: bool = True) -> None:
        self.outcome = Outcome(question, stream)
        self._cluster = cluster
        self._fault: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="asking")

    def __enter__(self) -> Asking:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join()
        if self._fault is not None:
            raise self._fault

    def _run(self) -> None:
        try:
            run(self._cluster, self.outcome)
        except BaseException as error:  # noqa: BLE001  raised where the block is left
            self._fault = error


class Load:
    """Clients, each asking one question after the other until its answer is an error.

    Leaving the block tells them that the request they wait for is their last; then `outcomes` has
    all that happened.
    """

    def __init__(self, cluster: Front, questions: Sequence[Question], clients: int) -> None:
        self._cluster = cluster
        self._questions = questions
        self._stop = threading.Event()
        self._each: list[list[Outcome]] = [[] for _ in range(clients)]
        self._faults: list[BaseException] = []
        self._threads = [
            threading.Thread(target=self._client, args=(number,), name=f"client-{number}")
            for number in range(clients)
        ]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        if self._faults:
            raise self._faults[0]

    def _client(self, number: int) -> None:
        mine = self._each[number]
        try:
            while not self._stop.is_set() and (not mine or mine[-1].complete):
                question = self._questions[(number + len(mine)) % len(self._questions)]
                mine.append(Outcome(question, stream=number % 2 == 0))
                run(self._cluster, mine[-1])
        except BaseException as error:  # noqa: BLE001  raised where the block is left
            self._faults.append(error)

    @property
    def outcomes(self) -> list[Outcome]:
        return [outcome for mine in self._each for outcome in mine]

    @property
    def streaming(self) -> bool:
        """Some stream has begun and has not ended."""
        return any(o.first_token.is_set() and not o.ended_at for o in self.outcomes)


def check_answer(outcome: Outcome, right: Mapping[Question, str]) -> None:
    """The right full answer, or a 503 in OpenAI's format after a true beginning of it."""
    expected = right[outcome.question]
    if outcome.complete:
        assert outcome.text == expected
        return
    assert outcome.error is not None, outcome
    assert set(outcome.error) == {"message", "type", "param", "code"}
    assert (outcome.error["type"], outcome.error["code"]) == ("server_error", "unavailable")
    assert "worker" in outcome.error["message"] or "died" in outcome.error["message"]
    assert outcome.status == (200 if outcome.first_token.is_set() else 503), outcome
    assert expected.startswith(outcome.text.rstrip("\ufffd"))
