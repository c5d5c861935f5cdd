"""Logprobs of the prompt, and what else is known of it when the first token goes out."""

from __future__ import annotations

from dataclasses import replace

from epd.cluster import Accepted, Opening
from epd.types import FinishReason, RequestKey, TokenLogprobs
from epd.wire import messages as m
from tests.cluster.owning import Gateway, R, emits, emitted, one, root_of, split
from tests.cluster.samples import decode, layout, prefill, run

AGAIN = RequestKey("r", 2)


def logprobs(*values: float) -> tuple[TokenLogprobs, ...]:
    return tuple(TokenLogprobs(logprob=value) for value in values)


def asking(n: int = 1) -> Gateway:
    """A prompt of 4 tokens runs, so that three logprobs are due."""
    gateway = split(prefill("P2"), decode("D2"), root_of=root_of)
    gateway.running(prompt_logprobs=1, n=n)
    return gateway


def opening(instructions: list[object]) -> Opening | None:
    found = [e.opening for e in emits(instructions) if e.opening is not None]  # type: ignore[arg-type]
    return found[0] if found else None


def test_the_first_run_says_what_is_known_of_the_prompt() -> None:
    """Only the first one, of whichever choice."""
    gateway = split()
    gateway.submit(n=2)
    gateway.reserved()
    gateway.admitted(cached=3)
    first, second = emits(gateway.emits("P", run(0, 10, choice=1), run(0, 1)))
    assert first.opening == Opening(num_cached_tokens=3)
    assert second.opening is None


def test_the_first_admission_says_what_was_cached() -> None:
    """Not the one after a loss, which finds what the lost one computed."""
    gateway = split()
    gateway.submit()
    gateway.reserved()
    gateway.admitted(cached=1)
    gateway.failed("D", 429)
    gateway.reserved(request=AGAIN)
    gateway.admitted(request=AGAIN, cached=3)
    (first,) = emits(gateway.emits("P", run(0, 10, attempt=2)))
    assert first.opening == Opening(num_cached_tokens=1)


def test_the_places_of_rows_are_told_with_the_prompts_ids() -> None:
    """Four tokens of text, and two items of which the first begins with a token of its own."""
    gateway = split()
    gateway.submit(items=2, prompt_logprobs=0)
    gateway.laid_out(found=replace(layout(3), row_spans=((1, 3),)))
    accepted, *_ = gateway.laid_out(index=1, found=layout(2))
    assert accepted == Accepted("r", 9, (1, 1, 1, 1, 9, 9, 9, 9, 9), ((5, 7), (7, 9)))


def test_logprobs_are_collected_chunk_by_chunk() -> None:
    gateway = asking()
    assert gateway.scores(1, -1.0, -2.0) == []
    assert gateway.scores(3, -3.0) == []
    (first,) = emits(gateway.emits("P", run(0, 10)))
    assert first.opening == Opening(0, logprobs(-1.0, -2.0, -3.0))


def test_repeats_and_what_is_no_prompt_token_change_nothing() -> None:
    gateway = asking()
    gateway.scores(0, -9.0, -1.0)
    gateway.scores(1, -8.0, -2.0, -3.0, -4.0)
    (first,) = emits(gateway.emits("P", run(0, 10)))
    assert first.opening == Opening(0, logprobs(-1.0, -2.0, -3.0))


def test_tokens_wait_for_the_prompts_logprobs() -> None:
    """Whatever overtook them goes out with the last one."""
    gateway = asking(n=2)
    assert gateway.emits("P", run(0, 10), run(0, 20, choice=1)) == []
    assert gateway.emits("D", run(1, 11)) == []
    assert gateway.scores(1, -1.0, -2.0) == []
    out = gateway.scores(3, -3.0)
    assert (emitted(out), emitted(out, choice=1)) == ([10, 11], [20])
    assert emits(out)[0].opening == Opening(0, logprobs(-1.0, -2.0, -3.0))
    assert gateway.scores(3, -3.0) == []


def test_tokens_that_waited_for_a_lost_attempt_go_nowhere() -> None:
    """The next attempt collects the rest, and tells its own tokens."""
    gateway = asking()
    gateway.emits("P", run(0, 10))
    gateway.scores(1, -1.0)
    gateway.dies("P")
    assert gateway.scores(2, -7.0) == []
    gateway.reserved(request=AGAIN)
    gateway.admitted("P2", AGAIN)
    out = gateway.scores(1, -1.0, -2.0, -3.0, request=AGAIN)
    assert emitted(out) == []
    (first,) = emits(gateway.emits("P2", run(0, 20, attempt=2)))
    assert first.opening == Opening(0, logprobs(-1.0, -2.0, -3.0))


def test_a_prompt_whose_logprobs_are_known_is_not_asked_again() -> None:
    """So that the next attempt may use cached KV."""
    gateway = asking()
    gateway.scores(1, -1.0, -2.0, -3.0)
    gateway.emits("P", run(0, 10))
    gateway.dies("P")
    admit = one(gateway.reserved(request=AGAIN), m.Admit)
    assert admit.sampling.prompt_logprobs is None


def test_until_they_are_known_they_are_asked_for() -> None:
    gateway = asking()
    gateway.dies("P")
    assert one(gateway.reserved(request=AGAIN), m.Admit).sampling.prompt_logprobs == 1


def test_a_prompt_of_one_token_has_no_logprobs_to_wait_for() -> None:
    gateway = split()
    gateway.running(text=1, prompt_logprobs=0)
    (first,) = emits(gateway.emits("P", run(0, 10)))
    assert first.opening == Opening(0)


def test_logprobs_of_an_ended_request_are_not_heard() -> None:
    gateway = split()
    assert gateway.scores(1, -1.0, request=R) == []


def test_tokens_keep_their_logprobs_in_any_order() -> None:
    """Those of a repeated token are dropped with it."""
    gateway = split()
    gateway.running()
    first, second, third = logprobs(-1.0, -2.0, -3.0)
    assert gateway.emits("D", run(1, 11, logprobs=(second,))) == []
    (out,) = emits(gateway.emits("P", run(0, 10, logprobs=(first,))))
    assert out.run.logprobs == (first, second)
    last = run(1, 11, 12, logprobs=(second, third), finish=FinishReason.STOP)
    (end,) = emits(gateway.emits("D", last))
    assert (end.run.token_ids, end.run.logprobs) == ((12,), (third,))
