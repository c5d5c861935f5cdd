"""Kernels that choose in one pass give the ids that one operation after the other gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from epd.attention import kernels
from epd.engine.choosing import Choosing, StepByStep
from epd.engine.one_pass import OnePass
from epd.grammar import Grammars, no_grammars, regex_text
from epd.types import SamplingParams
from tests.engine.test_sampler import CONTROLS, Row, make_logits, make_rows
from tests.grammar.vocabulary import VOCAB, eos, grammars

DEVICE = torch.device("cpu" if kernels.interpreted() else "cuda")
LARGE = 64 * 5 + 13  # several blocks, the last one cut off
FEW = ("greedy", "top_p", "all filters", "both counts", "everything")


@pytest.fixture(autouse=True)
def runs() -> None:
    if DEVICE.type == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")


def of(way: type[StepByStep] | type[OnePass], rows: Sequence[Row], vocab: int) -> Choosing:
    made: Choosing = way(vocab, DEVICE, no_grammars())
    for slot, row in enumerate(rows):
        made.add(slot, row.params, row.choice, row.prompt, row.generated)
    return made


def both(
    rows: Sequence[Row], logits: torch.Tensor, steps: int = 1
) -> tuple[list[list[int]], list[list[int]]]:
    """Ids of both ways, step by step; what is not finite is -1."""
    found: list[list[list[int]]] = []
    for way in (StepByStep, OnePass):
        made = of(way, rows, logits.shape[-1])
        said: list[list[int]] = []
        for step in range(steps):
            index = torch.tensor([len(row.generated) + step for row in rows])
            ids, finite = made.choose(
                logits.roll(step, 0).to(DEVICE), torch.arange(len(rows)), index
            )
            assert ((ids >= 0) & (ids < logits.shape[-1])).all()
            said.append(torch.where(finite, ids, -1).tolist())
        found.append(said)
    return found[0], found[1]


def test_every_control() -> None:
    rows = make_rows(LARGE, times=1)
    usual, found = both(rows, make_logits(len(rows), LARGE))
    assert found == usual
    other = [replace(row, params=replace(row.params, seed=77)) for row in rows[1:4]]
    assert both(other, make_logits(len(rows), LARGE)[1:4])[1] != [found[0][1:4]]  # control


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_in_which_many_scores_are_equal(dtype: torch.dtype) -> None:
    rows = [row for row in make_rows(LARGE, times=1) if row.name.removesuffix(" 0") in FEW]
    usual, found = both(rows, make_logits(len(rows), LARGE).to(dtype))
    assert found == usual


def test_what_was_chosen_counts_in_the_next_step() -> None:
    """Penalties grow, stops may come when it is time."""
    names = ("repetition", "presence", "both counts", "min_tokens", "everything")
    rows = [row for row in make_rows(LARGE, times=1) if row.name.removesuffix(" 0") in names]
    # The same few ids are likely again and again.
    logits = make_logits(1, LARGE).expand(len(rows), -1) * 3
    usual, found = both(rows, logits, steps=3)
    assert found == usual
    forgetful = [replace(row, params=SamplingParams(seed=row.params.seed)) for row in rows]
    assert both(forgetful, logits, steps=3)[1] != found  # negative control


def test_a_slot_that_is_taken_again_has_nothing_of_its_last_holder() -> None:
    row = Row("a", SamplingParams(**CONTROLS["everything"], seed=3), tuple(range(9)), (1, 2, 2))
    plain = Row("b", SamplingParams(presence_penalty=0.1), (4,))
    made = of(OnePass, [row], LARGE)
    made.forget(0)
    assert not made.add(0, plain.params, 0, plain.prompt, plain.generated)
    logits = make_logits(1, LARGE)
    ids, _ = made.choose(logits.to(DEVICE), torch.tensor([0]), torch.tensor([0]))
    assert ids.tolist() == [int(logits.argmax())]


@pytest.mark.parametrize("number", [torch.nan, torch.inf, -torch.inf])
def test_broken_logits_are_that_rows_trouble_alone(number: float) -> None:
    rows = [Row(str(n), SamplingParams(temperature=0.7 * n, top_p=0.9), (1,)) for n in range(3)]
    logits = make_logits(len(rows), LARGE)
    want = both(rows, logits)[0]
    logits[1, 70] = number
    usual, found = both(rows, logits)
    assert found == usual == [[want[0][0], -1, want[0][2]]]


def test_only_what_a_grammar_allows_comes() -> None:
    """Beside a row without a grammar, whose likeliest token it forbids."""
    rules: Grammars = grammars()
    grammar = regex_text("[ab]{3}")
    guided = SamplingParams(temperature=1.5, grammar=grammar, stop_token_ids=(eos(),), seed=4)
    free = SamplingParams(temperature=1.5, seed=4)
    logits = make_logits(2, VOCAB)
    found = []
    for way in (StepByStep, OnePass):
        made = way(VOCAB, DEVICE, rules)
        assert not made.add(0, guided, 0, (1,), ()) and made.add(1, free, 0, (1,), ())
        slots, said = torch.tensor([0, 1]), []
        for step in range(3):
            ids, finite = made.choose(logits.to(DEVICE), slots, torch.full((2,), step))
            assert finite.all() and made.needs_ids
            made.chosen(slots, ids.tolist())
            said.append(ids.tolist())
        found.append(said)
    assert found[0] == found[1]
    assert {first for first, _ in found[1]} != {second for _, second in found[1]}
