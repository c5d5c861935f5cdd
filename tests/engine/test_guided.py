"""Answers that keep to a grammar, whatever the model would rather say."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from epd.config.sections import LanguageConfig
from epd.engine import Engine, Role, StepResult
from epd.errors import BadRequest
from epd.grammar import Grammars, Guide, any_of, json_text, lark_text, regex_text
from epd.types import FinishReason, SamplingParams
from tests.engine.tiny import (
    TinyLanguage,
    collect,
    extend,
    finish,
    hand_over,
    key,
    make_case,
    make_engine,
    make_request,
    start,
)
from tests.grammar.vocabulary import (
    VOCAB,
    accepts,
    eos,
    grammars,
    random_schema,
    text,
    tokenizer,
)

CASE = make_case(2, texts=(5, 7), grids=((4, 3),))
WILD = SamplingParams(temperature=1.5, seed=5, max_tokens=400)
LIST = json_text({"type": "array", "items": {"type": "boolean"}, "minItems": 4, "maxItems": 9})


def guided_engine(**config: int) -> Engine:
    return Engine(TinyLanguage(), LanguageConfig(**{"kv_tokens": 16384, **config}), grammars())


def sampling(grammar: str, **changes: Any) -> SamplingParams:
    return replace(WILD, grammar=grammar, stop_token_ids=(eos(),), **changes)


def answers(params: Sequence[SamplingParams]) -> list[list[int]]:
    """All of them at once, on one engine."""
    engine = guided_engine()
    for number, one in enumerate(params):
        start(engine, make_request(f"r{number}", CASE, one))
    found = finish(engine)
    return [found[f"r{number}"] for number in range(len(params))]


def value(tokens: list[int]) -> Any:
    assert tokens[-1] == eos(), "it did not come to an end"
    return json.loads(text(tokens))


def is_json(tokens: list[int]) -> bool:
    try:
        json.loads(text(tokens))
    except ValueError:
        return False
    return True


def test_random_schemas_give_values_that_they_accept_at_a_high_temperature() -> None:
    chance = random.Random(7)
    schemas = [random_schema(chance) for _ in range(24)]
    found = answers([sampling(json_text(one), seed=n) for n, one in enumerate(schemas)])
    for schema, tokens in zip(schemas, found, strict=True):
        assert accepts(schema, value(tokens)), (schema, text(tokens))


def test_without_a_grammar_this_model_says_no_json() -> None:
    """Negative control: it is the masks that made it."""
    found = answers([replace(WILD, seed=seed, max_tokens=60) for seed in range(24)])
    assert not any(map(is_json, found))


def test_a_regex_a_choice_and_a_lark_grammar_hold() -> None:
    found = answers(
        [
            sampling(regex_text("[0-9]{3}-[a-f]{2}")),
            sampling(any_of(["yes", "no \U0001f600"])),
            sampling(lark_text('start: "<" NAME ">"\nNAME: /[x-z]{2,5}/')),
        ]
    )
    said = [text(tokens) for tokens in found]
    assert len(said[0]) == 6 and said[0][3] == "-" and said[0][:3].isdigit()
    assert said[1] in {"yes", "no \U0001f600"}
    assert said[2].startswith("<") and set(said[2][1:-1]) <= set("xyz")


def test_a_guided_answer_depends_on_nothing_beside_it() -> None:
    """Guided and free ones, together and alone."""
    several = [sampling(LIST, seed=1), replace(WILD, max_tokens=30), sampling(LIST, seed=2)]
    assert answers(several) == [answers([one])[0] for one in several]


class _Telling(Guide):
    """Says when a mask was found."""

    found = threading.Event()

    def mask(self) -> bytes:
        mask = super().mask()
        self.found.set()
        return mask


class _Waiting(TinyLanguage):
    """A forward that ends only when a mask was found since the last one."""

    def forward(self, *args: Any, **options: Any) -> torch.Tensor:
        assert _Telling.found.wait(60), "no mask is looked for while the model runs"
        _Telling.found.clear()
        return super().forward(*args, **options)


class _TellingGrammars(Grammars):
    def guide(self, grammar: str, token_ids: Sequence[int] = ()) -> Guide:
        return _Telling(super().guide(grammar, token_ids)._matcher)


def test_masks_are_found_while_the_model_runs() -> None:
    """The first one beside the prompt, each of the others beside the step that uses it."""
    told = _TellingGrammars(
        lambda: str(tokenizer().backend_tokenizer.to_str()), vocab_size=VOCAB, eos_token_ids=[eos()]
    )
    engine = Engine(_Waiting(), LanguageConfig(kv_tokens=4096), told)
    start(engine, make_request("r", CASE, sampling(LIST)))
    assert finish(engine)["r"] == answers([sampling(LIST)])[0]


def test_each_of_several_choices_has_a_way_of_its_own() -> None:
    engine = guided_engine()
    start(engine, make_request("r", CASE, sampling(LIST, n=4)), room=400)
    found = finish(engine)
    assert len({tuple(tokens) for tokens in found.values()}) > 1
    assert all(4 <= len(value(tokens)) <= 9 for tokens in found.values())


def test_the_first_token_and_those_after_the_hand_off_are_those_of_one_engine() -> None:
    params = sampling(LIST)
    request = make_request("r", CASE, params)
    prefill, decode = guided_engine(), guided_engine()
    start(prefill, replace(request, role=Role.PREFILL))
    (run,) = prefill.step().tokens
    hand_over(prefill, decode, request, [(0, run.token_ids[0])])
    assert [*run.token_ids, *finish(decode)["r"]] == answers([params])[0]


@pytest.mark.parametrize("emitted", [1, 4, 9])
def test_a_resumed_answer_goes_on_where_its_grammar_was(emitted: int) -> None:
    params = sampling(LIST)
    (whole,) = answers([params])
    engine = guided_engine()
    request = make_request("r", extend(CASE, whole[:emitted]), params)
    start(engine, replace(request, first_index=emitted))
    assert whole[:emitted] + finish(engine)["r"] == whole


def test_a_preempted_answer_goes_on_where_its_grammar_was() -> None:
    """There is room for the prompts and a little more, so the youngest leave and come back."""
    params = [sampling(LIST, seed=seed, max_tokens=60) for seed in range(4)]
    engine = guided_engine(kv_tokens=160)
    for number, one in enumerate(params):
        start(engine, make_request(f"r{number}", CASE, one), room=0)
    found = finish(engine)
    assert engine.num_preempted
    assert [found[f"r{number}"] for number in range(4)] == answers(params)


def test_bias_penalties_and_filters_choose_among_what_the_grammar_allows() -> None:
    """The letter that is wanted most is not allowed, the next one is."""
    grammar = regex_text("[ab]")
    a, b, c = (grammars_id(letter) for letter in "abc")
    bias = ((a, 10.0), (b, 50.0), (c, 100.0))
    (tokens,) = answers([sampling(grammar, logit_bias=bias, top_k=1)])
    assert tokens == [b, eos()]


def test_log_probabilities_stay_the_models_own() -> None:
    params = sampling(any_of(["yes"]), logprobs=1, temperature=0.0)
    engine = guided_engine()
    start(engine, make_request("r", CASE, params))
    (run,) = engine.step().tokens
    free = guided_engine()
    start(free, make_request("r", CASE, replace(params, grammar="")))
    (freely,) = free.step().tokens
    assert run.token_ids != freely.token_ids
    assert run.logprobs[0].top == freely.logprobs[0].top


def test_min_tokens_holds_until_the_grammar_ends_the_answer() -> None:
    """It keeps back an end that need not be yet, and cannot keep back one that must be."""
    may, must = regex_text("[a-z]{1,40}"), regex_text("[a-z]{3}")
    found = answers([sampling(one, min_tokens=20, max_tokens=60) for one in (may, must)])
    assert len(found[0]) > 20
    assert len(text(found[1])) == 3 and found[1][-1] == eos()


def test_a_grammar_that_becomes_too_much_fails_its_request_alone() -> None:
    """The form is accepted, and has too many ways to go on from its second token."""
    names = {f"p{number}": {"type": "string"} for number in range(2500)}
    wide = json_text({"type": "object", "properties": names})
    engine = guided_engine()
    start(engine, make_request("wide", CASE, sampling(wide)))
    start(engine, make_request("other", CASE, sampling(LIST)))
    tokens: dict[str, list[int]] = {}
    failed: list[Any] = []
    while engine.has_work:
        result = engine.step()
        collect(tokens, result.tokens)
        failed += result.failed
        engine.check()
    ((name, error),) = failed
    assert name == key("wide") and isinstance(error, BadRequest)
    assert tokens["other"] == answers([sampling(LIST)])[0]


def test_an_engine_without_a_tokenizer_refuses_grammars() -> None:
    engine = make_engine()
    start(engine, make_request("r", CASE, sampling(LIST)))
    result: StepResult = engine.step()
    ((_, error),) = result.failed
    assert isinstance(error, BadRequest)


def test_the_end_of_the_grammar_is_a_stop() -> None:
    engine = guided_engine()
    start(engine, make_request("r", CASE, sampling(any_of(["ok"]))))
    runs = []
    while engine.has_work:
        runs += engine.step().tokens
    assert runs[-1].finish_reason is FinishReason.STOP


def grammars_id(letter: str) -> int:
    found = [token for token in range(256) if text([token]) == letter]
    return found[0]
