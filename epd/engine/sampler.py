"""From logits to token ids: a few tensor operations for the whole batch, no device sync.

Order and meaning as in transformers' generate(): bias, penalties, stops that come too early, what
the grammar forbids; then the argmax where the temperature is 0, else temperature, top_k, top_p,
min_p and a draw.

A row depends on nothing but its own logits, parameters, tokens and index.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch

from epd.attention.staging import put
from epd.engine.choosing import choosing_for
from epd.engine.logprobs import measure, read
from epd.engine.tables import Seats, fit
from epd.errors import EpdError
from epd.grammar import Grammars, no_grammars
from epd.types import SamplingParams, TokenLogprobs

# In place of a token id where the logits were not finite.
BROKEN = -1


@dataclass(frozen=True, slots=True)
class Sampled:
    """What one step chose. `ids`: int64 [N] on the device, BROKEN where logits were not finite."""

    ids: torch.Tensor
    _asked: list[int]  # by row: 0 without logprobs, else 1 + how many of the likeliest
    measured: torch.Tensor | None

    def logprobs(self, here: torch.Tensor | None = None) -> list[TokenLogprobs | None]:
        """Of each row's token, from the model's own logits; None where not asked for.

        `here`: `measured` on the host, which is waited for unless given. What it says of a row
        whose id is BROKEN means nothing.
        """
        if self.measured is None:
            return [None] * len(self._asked)
        here = self.measured if here is None else here
        found = iter(read(here, [top - 1 for top in self._asked if top]))
        return [next(found) if top else None for top in self._asked]


class Sampler:
    """Parameters and token statistics of running requests, in tables with a slot for each.

    A name stands for one choice of a request. Not thread-safe: the step thread owns it.
    """

    @torch.inference_mode()
    def __init__(
        self, *, vocab_size: int, device: torch.device, grammars: Grammars | None = None
    ) -> None:
        self._vocab_size = vocab_size
        self._device = device
        self._seats = Seats()
        self._slots: dict[Hashable, int] = {}
        self._choosing = choosing_for(vocab_size, device, grammars or no_grammars())
        # On the host, by slot: index of the next token; 0 without logprobs, else 1 + how many top.
        self._asked = torch.zeros(0, 2, dtype=torch.int64)
        self._plain: set[Hashable] = set()  # names that want the likeliest token and nothing else

    @torch.inference_mode()
    def add(
        self,
        name: Hashable,
        sampling: SamplingParams,
        choice: int,
        prompt: Sequence[int],
        generated: Sequence[int],
    ) -> None:
        """Take a request whose next token has index len(generated)."""
        assert name not in self._slots, f"{name} was added twice"
        sampling = self._known(sampling)
        slot = self._slots[name] = self._seats.take()
        self._asked = fit(self._asked, slot + 1, 2)
        top = -1 if sampling.logprobs is None else min(sampling.logprobs, self._vocab_size)
        self._asked[slot] = torch.tensor([len(generated), 1 + top])
        if self._choosing.add(slot, sampling, choice, prompt, generated) and _greedy(sampling):
            self._plain.add(name)

    @torch.inference_mode()
    def forget(self, name: Hashable) -> None:
        """The request is gone; unknown ones are ignored."""
        slot = self._slots.pop(name, None)
        if slot is not None:
            self._plain.discard(name)
            self._choosing.forget(slot)
            self._seats.give_back(slot)

    def names(self) -> Iterable[Hashable]:
        """Requests that something is kept for."""
        return self._slots.keys()

    @property
    def needs_ids(self) -> bool:
        """Whether the next step cannot be sampled before chosen() has told of this one."""
        return self._choosing.needs_ids

    def plain(self, names: Iterable[Hashable]) -> bool:
        """Whether all of them take the likeliest token, whatever the logits are otherwise."""
        return self._plain.issuperset(names)

    @torch.inference_mode()
    def take(self, ids: torch.Tensor, names: Sequence[Hashable]) -> Sampled:
        """What sample() would give plain names whose likeliest tokens are `ids`."""
        slots = torch.tensor([self._slots[name] for name in names], dtype=torch.int64)
        self._asked[slots, 0] += 1
        return Sampled(ids, [0] * len(names), None)

    @torch.inference_mode()
    def sample(self, logits: torch.Tensor, names: Sequence[Hashable]) -> Sampled:
        """The next token of each name, distinct ones, from its row of [N, vocab]."""
        slots = torch.tensor([self._slots[name] for name in names], dtype=torch.int64)
        index, asked = self._asked[slots].unbind(-1)
        ids, finite = self._choosing.choose(logits, slots, index)
        self._asked[slots, 0] += 1
        measured = self._measure(logits, ids, asked)
        return Sampled(torch.where(finite, ids, BROKEN), asked.tolist(), measured)

    def chosen(self, names: Sequence[Hashable], ids: Sequence[int]) -> None:
        """What sample() or take() gave for the names, once it is on the host."""
        slots = torch.tensor([self._slots[name] for name in names], dtype=torch.int64)
        self._choosing.chosen(slots, ids)

    def fault(self, name: Hashable) -> EpdError | None:
        """Why its id is BROKEN, where that is no fault of the logits."""
        return self._choosing.fault(self._slots[name])

    def _known(self, sampling: SamplingParams) -> SamplingParams:
        """Without ids outside of the vocabulary: they never come, and are no place to write to."""
        ids = range(self._vocab_size)
        return replace(
            sampling,
            stop_token_ids=tuple(token for token in sampling.stop_token_ids if token in ids),
            logit_bias=tuple(entry for entry in sampling.logit_bias if entry[0] in ids),
        )

    def _measure(
        self, logits: torch.Tensor, ids: torch.Tensor, asked: torch.Tensor
    ) -> torch.Tensor | None:
        places = asked.nonzero()[:, 0]
        if not len(places):
            return None
        if len(places) < len(asked):
            at = put(places, self._device)
            logits, ids = logits[at], ids[at]
        return measure(logits, ids, int(asked.max()) - 1)


def _greedy(sampling: SamplingParams) -> bool:
    return sampling.temperature == 0 and sampling.logprobs is None
