"""One answer, however its tokens come: in one run, one by one, or anything between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from epd.gateway.completion import Completion, Piece
from epd.observe import Path
from epd.prompt import Detokenizer
from epd.prompt.calls import PLAIN, AnswerForm
from epd.types import FinishReason, RequestKey, TokenLogprobs, TokenRun
from tests.prompt.folders import byte_fallback_bpe, byte_level_bpe

TOKENIZERS = {"byte level": byte_level_bpe(), "byte fallback": byte_fallback_bpe()}
WORDS = ["the", " quick", "\n", "<|im_end|>", "<think>", "\u00e9", "\u4e16\u754c", "\u2028"]
EMOJI = ["\U0001f600", "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\U0001f1eb\U0001f1f7"]
OPEN = AnswerForm(reasoning=True, begun=True)
MAYBE = AnswerForm(reasoning=True)
TEXT = st.lists(st.sampled_from(WORDS + EMOJI), max_size=12).map("".join)


@dataclass
class Call:
    """Plays runs, and ends what nobody wants more of."""

    played: Sequence[TokenRun]
    request_id: str = "r"
    path: Path = field(default_factory=lambda: Path.of("r", 0.0, ()))
    num_prompt_tokens: int = 7
    num_cached_tokens: int = 0
    prompt_token_ids: tuple[int, ...] = ()
    prompt_row_spans: tuple[tuple[int, int], ...] = ()
    prompt_logprobs: tuple[TokenLogprobs, ...] = ()
    more: bool = False

    async def runs(self) -> AsyncIterator[TokenRun]:
        for run in self.played:
            yield run

    def end_choice(self, choice: int) -> None:
        pass

    async def cancel(self) -> None:
        pass


def runs_of(ids: Sequence[int], cuts: Sequence[int], reason: FinishReason) -> list[TokenRun]:
    """The same tokens, cut at these places; the token that ends them comes with the reason."""
    edges = sorted({0, *(cut % max(1, len(ids)) for cut in cuts)}) + [len(ids)]
    return [
        TokenRun(
            request=RequestKey("r", 1),
            first_index=start,
            token_ids=tuple(ids[start:end]),
            finish_reason=reason if number == len(edges) - 2 else None,
            logprobs=tuple(TokenLogprobs(logprob=-one / 8) for one in ids[start:end]),
        )
        for number, (start, end) in enumerate(pairwise(edges))
    ]


def answered(
    tokenizer: Tokenizer,
    runs: Sequence[TokenRun],
    stop_ids: tuple[int, ...] = (),
    **how: Any,
) -> list[Piece]:
    async def collect() -> list[Piece]:
        detokenizer = Detokenizer(tokenizer, **how)
        completion = Completion(Call(runs), detokenizers=[detokenizer], stop_token_ids=stop_ids)
        return [piece async for piece in completion.pieces()]

    return asyncio.run(collect())


def num_reasoning(
    tokenizer: Tokenizer, runs: Sequence[TokenRun], form: AnswerForm, **how: Any
) -> list[int]:
    """After each run, as a stream tells it."""

    async def collect() -> list[int]:
        completion = Completion(
            Call(runs), detokenizers=[Detokenizer(tokenizer, **how)], stop_token_ids=(), form=form
        )
        found = []
        async for _ in completion.pieces():
            found.append(completion.usage()["completion_tokens_details"]["reasoning_tokens"])
        return found

    return asyncio.run(collect())


def joined(pieces: Sequence[Piece]) -> Any:
    return (
        "".join(piece.text for piece in pieces),
        sum((piece.token_ids for piece in pieces), ()),
        sum((piece.logprobs for piece in pieces), ()),
        pieces[-1].finish_reason,
    )


@st.composite
def answers(draw: st.DrawFn) -> tuple[Tokenizer, list[int], list[str]]:
    """Tokens of a text or any tokens at all, and stop strings of which some stand in the text."""
    tokenizer = TOKENIZERS[draw(st.sampled_from(list(TOKENIZERS)))]
    size = tokenizer.get_vocab_size()
    ids = draw(
        TEXT.map(lambda text: tokenizer.encode(text, add_special_tokens=False).ids)
        | st.lists(st.integers(0, size - 1), max_size=24)
    )
    text = tokenizer.decode(ids, skip_special_tokens=True)
    stops = draw(st.lists(st.sampled_from(["the", "qu", "\U0001f469", "\ufffd"]), max_size=2))
    if text:
        start = draw(st.integers(0, len(text) - 1))
        stops.append(text[start : start + draw(st.integers(1, 6))])
    return tokenizer, ids, stops


@settings(max_examples=400)
@given(
    answers(),
    st.lists(st.integers(0, 24), max_size=24),
    st.integers(0, 6),
    st.sampled_from(FinishReason),
    st.booleans(),
    st.booleans(),
)
def test_a_stream_joins_to_the_whole_answer(
    answer: tuple[Tokenizer, list[int], list[str]],
    cuts: list[int],
    min_tokens: int,
    reason: FinishReason,
    shows_special: bool,
    shows_stop: bool,
) -> None:
    """Text, token ids, their logprobs and why it ended: stop strings across tokens and runs,
    characters of several tokens, special tokens, bytes that are no text."""
    tokenizer, ids, stops = answer
    how = {
        "stops": stops,
        "min_tokens": min_tokens,
        "shows_special": shows_special,
        "shows_stop": shows_stop,
    }
    stop_ids = tuple(ids[-1:]) if reason is FinishReason.STOP else ()
    whole = joined(answered(tokenizer, runs_of(ids, [], reason), stop_ids, **how))
    streamed = answered(tokenizer, runs_of(ids, cuts, reason), stop_ids, **how)
    assert joined(streamed) == whole
    one_by_one = runs_of(ids, range(len(ids)), reason)
    assert joined(answered(tokenizer, one_by_one, stop_ids, **how)) == whole


@settings(max_examples=200)
@given(answers(), st.lists(st.integers(0, 24), max_size=24), st.booleans())
def test_an_answer_is_the_decoded_text_up_to_the_stop_string(
    answer: tuple[Tokenizer, list[int], list[str]], cuts: list[int], shows_stop: bool
) -> None:
    """Against the tokenizer itself and `str.find`."""
    tokenizer, ids, stops = answer
    skipped = {i for i, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    text = tokenizer.decode([one for one in ids if one not in skipped], skip_special_tokens=False)
    assume("\ufffd" not in text)  # how many of them stand for bytes is the decoder's own business
    ends = [(text.find(stop) + len(stop), text.find(stop)) for stop in stops if stop in text]
    expected = text if not ends else text[: min(ends)[0 if shows_stop else 1]]
    pieces = answered(
        tokenizer,
        runs_of(ids, cuts, FinishReason.LENGTH),
        stops=stops,
        shows_stop=shows_stop,
    )
    assert "".join(piece.text for piece in pieces) == expected
    assert pieces[-1].finish_reason is (FinishReason.STOP if ends else FinishReason.LENGTH)


def test_half_a_character_is_never_shown() -> None:
    tokenizer = TOKENIZERS["byte level"]
    ids = tokenizer.encode("".join(EMOJI)).ids
    pieces = answered(tokenizer, runs_of(ids, range(len(ids)), FinishReason.LENGTH))
    assert len(pieces) == len(ids) > len("".join(EMOJI))
    assert not any("\ufffd" in piece.text for piece in pieces)
    assert "".join(piece.text for piece in pieces) == "".join(EMOJI)


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize(
    ("form", "thought", "rest"),
    [
        (OPEN, "hm, the quick</think>", "fox"),
        (OPEN, "hm, the quick", ""),
        (OPEN, "<think>the</think>", " fox <think>no</think>"),
        (OPEN, "</think>", ""),
        (MAYBE, "<think>the</think>", "fox"),
        (MAYBE, " \n<think>the", ""),
        (MAYBE, "", "the </think> fox"),
        (MAYBE, "", "<thin"),
        (PLAIN, "", "<think>the</think> fox"),
    ],
)
def test_tokens_of_reasoning_are_counted_with_its_marks_and_no_others(
    name: str, form: AnswerForm, thought: str, rest: str
) -> None:
    """However the tokens come together."""
    tokenizer = TOKENIZERS[name]
    num = len(tokenizer.encode(thought, add_special_tokens=False).ids) if thought else 0
    tail = tokenizer.encode(rest, add_special_tokens=False).ids if rest else []
    ids = [*tokenizer.encode(thought, add_special_tokens=False).ids[:num], *tail]
    every: tuple[Sequence[int], ...] = ((), range(len(ids)), (2, 5))
    for cuts in every:
        runs = runs_of(ids, cuts, FinishReason.LENGTH)
        found = num_reasoning(tokenizer, runs, form)
        assert found[-1] == num and found == sorted(found)


def test_a_stop_string_ends_the_count_of_reasoning_too() -> None:
    tokenizer = TOKENIZERS["byte level"]
    ids = tokenizer.encode("the quick fox</think>house").ids
    upto = len(tokenizer.encode("the quick").ids)
    one_by_one: Sequence[int] = range(len(ids))
    for cuts in ((), one_by_one):
        runs = runs_of(ids, cuts, FinishReason.LENGTH)
        assert num_reasoning(tokenizer, runs, OPEN, stops=["quick"])[-1] == upto
