"""One request's record: a gapless stream, and a prompt that resumes."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from epd.cluster.requests import Answer, Item, Request
from epd.cluster.streams import Stream
from epd.cluster.submission import ItemJob, Submission
from epd.types import FinishReason, ItemKey, Modality, RequestKey, SamplingParams, TokenRun
from tests.cluster.samples import layout, run

STOP = FinishReason.STOP


def taken(
    stream: Stream, given: TokenRun
) -> tuple[int, tuple[int, ...], FinishReason | None] | None:
    """What the stream makes of it."""
    emitted = stream.take(given)
    if emitted is None:
        return None
    return emitted.first_index, emitted.token_ids, emitted.finish_reason


# ---- the stream


def test_the_next_token_is_emitted_at_once() -> None:
    """With its reason to stop, if it has one."""
    stream = Stream()
    assert taken(stream, run(0, 10)) == (0, (10,), None)
    assert taken(stream, run(1, 11, finish=STOP)) == (1, (11,), STOP)
    assert stream.emitted == [10, 11]


def test_what_is_ahead_waits() -> None:
    """Decode's second token overtakes prefill's first."""
    stream = Stream()
    assert taken(stream, run(1, 11, 12, finish=STOP)) is None
    assert taken(stream, run(0, 10)) == (0, (10, 11, 12), STOP)


def test_what_is_behind_is_dropped() -> None:
    """A repeat, whole or in part."""
    stream = Stream()
    stream.take(run(0, 10, 11))
    assert taken(stream, run(0, 10)) is None
    assert taken(stream, run(1, 11, 12)) == (2, (12,), None)


def test_an_end_without_tokens_is_an_end() -> None:
    """All of its tokens were emitted before."""
    stream = Stream()
    stream.take(run(0, 10))
    assert taken(stream, run(1, finish=STOP)) == (1, (), STOP)


def test_an_end_waits_for_the_tokens_before_it() -> None:
    """The last run overtakes one in the middle."""
    stream = Stream()
    assert taken(stream, run(0, 10)) == (0, (10,), None)
    assert taken(stream, run(2, finish=STOP)) is None
    assert taken(stream, run(1, 11)) == (1, (11,), STOP)


def test_a_new_attempt_begins_after_what_was_emitted() -> None:
    """What was ahead, and an end that was ahead, come again, maybe different."""
    stream = Stream()
    stream.take(run(0, 10))
    stream.take(run(2, 12, finish=STOP))
    stream.restart()
    assert taken(stream, run(1, 21, attempt=2)) == (1, (21,), None)
    assert taken(stream, run(2, 22, attempt=2)) == (2, (22,), None)


@given(data=st.data(), length=st.integers(1, 8))
def test_any_order_with_repeats_makes_one_gapless_stream(data: st.DataObject, length: int) -> None:
    """Runs of any cut, each at least once."""
    runs = [
        run(first, *range(first, end), finish=STOP if end == length else None)
        for first in range(length)
        for end in range(first + 1, length + 1)
    ]
    some = data.draw(st.lists(st.sampled_from(runs), max_size=12))
    singles = [r for r in runs if len(r.token_ids) == 1]
    stream, seen, reasons = Stream(), list[int](), list[FinishReason | None]()
    for one in data.draw(st.permutations([*some, *singles])):
        if len(seen) < length and (emitted := stream.take(one)) is not None:
            assert emitted.first_index == len(seen)
            seen += emitted.token_ids
            reasons.append(emitted.finish_reason)
    assert seen == list(range(length))
    assert reasons.count(STOP) == 1 and reasons[-1] is STOP


# ---- the prompt


def request(*items: Item, text: tuple[tuple[int, ...], ...]) -> Request:
    """A record with its items in place."""
    jobs = tuple(item.job for item in items)
    submission = Submission(request_id="r", text=text, items=jobs, sampling=SamplingParams())
    answer = Answer.of(submission, None)
    return Request("r", answer, 1, (0,), submission.sampling, items=list(items))


def item(index: int, *, replaces_left: int = 0, pending: bool = False) -> Item:
    """It becomes two tokens 9."""
    job = ItemJob(modality=Modality.IMAGE, url=None, text_before="")
    shape = layout(2, replaces_left=replaces_left)
    return Item(job, ItemKey("r", index, 1), "E", layout=shape, pending=pending)


def test_a_prompt_is_text_and_items_in_turn() -> None:
    """Ending with text, empty or not."""
    prompt = request(item(0), item(1), text=((1, 2), (3,), ())).prompt()
    assert prompt.token_ids() == [1, 2, 9, 9, 3, 9, 9]
    assert prompt.num_tokens == 7


def test_an_expansion_may_replace_text_left_of_it() -> None:
    """Its first tokens merge with what stands before the placeholder."""
    prompt = request(item(0, replaces_left=1), text=((1, 2), (3,))).prompt()
    assert prompt.token_ids() == [1, 9, 9, 3]


def test_text_that_an_item_replaces_counts_nowhere() -> None:
    """Not in the length, the items' offsets or their rows; and only before its own item."""
    prompt = request(
        item(0, replaces_left=2), item(1, replaces_left=1), text=((1, 2), (3, 4), (5,))
    ).prompt()
    assert prompt.token_ids() == [9, 9, 3, 9, 9, 5]
    assert prompt.num_tokens == 6
    assert prompt.offsets == (0, 3)
    assert [prompt.rows_before(num) for num in (0, 1, 2, 3, 4, 6)] == [0, 1, 2, 2, 3, 4]


def test_a_resumed_prompt_still_lacks_the_replaced_text() -> None:
    """It is made anew for each attempt, from a submission that never changes."""
    record = request(item(0, replaces_left=1), text=((1, 2), (3,)))
    record.answer.streams[0].take(run(0, 10, 11))
    record.restart()
    for _ in range(2):
        assert record.prompt().token_ids() == [1, 9, 9, 3, 10, 11]


def test_hashes_are_of_the_prompt_after_replacing() -> None:
    """Equal to those of a prompt that never had the replaced text."""
    ids = tuple(range(100, 130))
    replaced = request(item(0, replaces_left=3), text=((*ids, 1, 2, 3), (4,) * 20))
    plain = request(item(0), text=(ids, (4,) * 20))
    kept = request(item(0), text=((*ids, 1, 2, 3), (4,) * 20))
    prefixes = []
    for record in (replaced, plain, kept):
        record.answer.root = b"root"
        prefixes.append(record.prefix)
    assert prefixes[0] == prefixes[1]
    assert prefixes[0] is not None and prefixes[2] is not None
    assert prefixes[0].blocks[0] == prefixes[2].blocks[0]
    assert set(prefixes[0].blocks[1:]).isdisjoint(prefixes[2].blocks)


def test_a_resumed_prompt_ends_with_what_was_emitted() -> None:
    """And only with that; the submission itself never changes."""
    record = request(item(0), text=((1,), (3,)))
    stream = record.answer.streams[0]
    stream.take(run(0, 10, 11))
    stream.take(run(5, 15))
    record.restart()
    stream.take(run(2, 12, attempt=2))
    assert record.prompt().token_ids() == [1, 9, 9, 3, 10, 11]
    assert record.prompt().token_ids() == [1, 9, 9, 3, 10, 11]


def test_an_item_that_is_encoded_again_has_no_encoder_yet() -> None:
    """Nobody may be asked for its rows before they have a home."""
    prompt = request(item(0, pending=True), item(1), text=((), (), ())).prompt()
    assert [placed.encoder for placed in prompt.items] == ["", "E"]


@pytest.mark.parametrize("missing", [True, False])
def test_a_request_is_laid_out_when_every_item_is(missing: bool) -> None:
    """Then its length is known."""
    record = request(item(0), item(1), text=((), (), ()))
    if missing:
        record.items[1].layout = None
    assert record.laid_out is not missing


def test_an_attempt_has_a_key_of_its_own() -> None:
    """So that late messages of the one before are known as such."""
    record = request(text=((1,),))
    assert record.key == RequestKey("r", 1)
    record.attempt = 2
    assert record.key == RequestKey("r", 2)
