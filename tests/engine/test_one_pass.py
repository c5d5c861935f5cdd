"""Kernels that choose in one pass give the ids that one operation after the other gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from epd.engine.choosing import Choosing, StepByStep
from epd.engine.one_pass import OnePass
from epd.grammar import Grammars, no_grammars, regex_text
from epd.types import SamplingParams
from tests.engine.test_sampler import CONTROLS, Row, make_logits, make_rows, plain
from tests.grammar.vocabulary import VOCAB, eos, grammars

LARGE = 64 * 5 + 13  # several blocks, the last one cut off
REAL = 151_936
FEW = ("greedy", "top_p", "all filters", "both counts", "everything")


def of(
    way: type[StepByStep] | type[OnePass], rows: Sequence[Row], vocab: int, device: torch.device
) -> Choosing:
    made: Choosing = way(vocab, device, no_grammars())
    for slot, row in enumerate(rows):
        made.add(slot, row.params, row.choice, row.prompt, row.generated)
    return made


def both(
    rows: Sequence[Row], logits: torch.Tensor, device: torch.device, steps: int = 1
) -> tuple[list[list[int]], list[list[int]]]:
    """Ids of both ways, step by step; what is not finite is -1."""
    found: list[list[list[int]]] = []
    for way in (StepByStep, OnePass):
        made = of(way, rows, logits.shape[-1], device)
        said: list[list[int]] = []
        for step in range(steps):
            index = torch.tensor([len(row.generated) + step for row in rows])
            ids, finite = made.choose(
                logits.roll(step, 0).to(device), torch.arange(len(rows)), index
            )
            assert ((ids >= 0) & (ids < logits.shape[-1])).all()
            said.append(torch.where(finite, ids, -1).tolist())
        found.append(said)
    return found[0], found[1]


def test_every_control(device: torch.device) -> None:
    rows = make_rows(LARGE, times=1)
    usual, found = both(rows, make_logits(len(rows), LARGE), device)
    assert found == usual
    other = [replace(row, params=replace(row.params, seed=77)) for row in rows[1:4]]
    assert both(other, make_logits(len(rows), LARGE)[1:4], device)[1] != [found[0][1:4]]  # control


def chosen(
    way: type[StepByStep] | type[OnePass],
    rows: Sequence[Row],
    logits: torch.Tensor,
    device: torch.device,
) -> list[int]:
    made = of(way, rows, logits.shape[-1], device)
    index = torch.tensor([len(row.generated) for row in rows])
    ids, finite = made.choose(logits.to(device), torch.arange(len(rows)), index)
    assert finite.all()
    found: list[int] = ids.tolist()
    return found


@pytest.mark.parametrize("way", [StepByStep, OnePass])
def test_every_control_equals_the_reference_in_double_precision(
    way: type[StepByStep] | type[OnePass], device: torch.device
) -> None:
    rows = make_rows(LARGE, times=1)
    logits = make_logits(len(rows), LARGE)
    want = [plain(line, row) for line, row in zip(logits, rows, strict=True)]
    assert chosen(way, rows, logits, device) == want


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_real_vocabulary_on_a_card(dtype: torch.dtype) -> None:
    """Few tokens are likely, so that no draw lies where float32 rounds to another one."""
    rows = [row for row in make_rows(REAL, times=1) if row.name.removesuffix(" 0") in FEW]
    logits = (make_logits(len(rows), REAL) * 3).to(dtype)
    want = [plain(line, row) for line, row in zip(logits.float(), rows, strict=True)]
    for way in (StepByStep, OnePass):
        assert chosen(way, rows, logits, torch.device("cuda")) == want


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_in_which_many_scores_are_equal(
    dtype: torch.dtype, device: torch.device
) -> None:
    rows = [row for row in make_rows(LARGE, times=1) if row.name.removesuffix(" 0") in FEW]
    usual, found = both(rows, make_logits(len(rows), LARGE).to(dtype), device)
    assert found == usual


def test_what_was_chosen_counts_in_the_next_step(device: torch.device) -> None:
    """Penalties grow, stops may come when it is time."""
    names = ("repetition", "presence", "both counts", "min_tokens", "everything")
    rows = [row for row in make_rows(LARGE, times=1) if row.name.removesuffix(" 0") in names]
    # The same few ids are likely again and again.
    logits = make_logits(1, LARGE).expand(len(rows), -1) * 3
    usual, found = both(rows, logits, device, steps=3)
    assert found == usual
    forgetful = [replace(row, params=SamplingParams(seed=row.params.seed)) for row in rows]
    assert both(forgetful, logits, device, steps=3)[1] != found  # negative control


def test_a_slot_that_is_taken_again_has_nothing_of_its_last_holder(device: torch.device) -> None:
    row = Row("a", SamplingParams(**CONTROLS["everything"], seed=3), tuple(range(9)), (1, 2, 2))
    plain = Row("b", SamplingParams(presence_penalty=0.1), (4,))
    made = of(OnePass, [row], LARGE, device)
    made.forget(0)
    assert not made.add(0, plain.params, 0, plain.prompt, plain.generated)
    logits = make_logits(1, LARGE)
    ids, _ = made.choose(logits.to(device), torch.tensor([0]), torch.tensor([0]))
    assert ids.tolist() == [int(logits.argmax())]


@pytest.mark.parametrize("number", [torch.nan, torch.inf, -torch.inf])
def test_broken_logits_are_that_rows_trouble_alone(number: float, device: torch.device) -> None:
    rows = [Row(str(n), SamplingParams(temperature=0.7 * n, top_p=0.9), (1,)) for n in range(3)]
    logits = make_logits(len(rows), LARGE)
    want = both(rows, logits, device)[0]
    logits[1, 70] = number
    usual, found = both(rows, logits, device)
    assert found == usual == [[want[0][0], -1, want[0][2]]]


def test_only_what_a_grammar_allows_comes(device: torch.device) -> None:
    """Beside a row without a grammar, whose likeliest token it forbids."""
    rules: Grammars = grammars()
    grammar = regex_text("[ab]{3}")
    guided = SamplingParams(temperature=1.5, grammar=grammar, stop_token_ids=(eos(),), seed=4)
    free = SamplingParams(temperature=1.5, seed=4)
    logits = make_logits(2, VOCAB)
    found = []
    for way in (StepByStep, OnePass):
        made = way(VOCAB, device, rules)
        assert not made.add(0, guided, 0, (1,), ()) and made.add(1, free, 0, (1,), ())
        slots, said = torch.tensor([0, 1]), []
        for step in range(3):
            ids, finite = made.choose(logits.to(device), slots, torch.full((2,), step))
            assert finite.all() and made.needs_ids
            made.chosen(slots, ids.tolist())
            said.append(ids.tolist())
        found.append(said)
    assert found[0] == found[1]
    assert {first for first, _ in found[1]} != {second for _, second in found[1]}
