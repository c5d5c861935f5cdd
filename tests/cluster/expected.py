"""Hugging Face's answers to the cases, greedy or drawn with epd's sampler from its logits."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch

from epd.engine.sampler import Sampler
from epd.grammar import Grammars
from epd.types import SamplingParams
from tests.cluster.cases import MAX_TOKENS, Answer, Case
from tests.reference import Reference


class Expected:
    """One family's right answers; greedy ones are computed once per case."""

    def __init__(self, reference: Reference) -> None:
        self.reference = reference
        self._known: dict[int, tuple[Case, Answer]] = {}

    def answer(self, case: Case) -> Answer:
        """Greedy, with the checkpoint's own penalty."""
        if id(case) not in self._known:
            self._known[id(case)] = case, self.compute(case)
        return self._known[id(case)][1]

    def compute(self, case: Case, **options: Any) -> Answer:
        """Greedy, with `options` in generate()'s words."""
        reference = self.reference
        prompt_ids, new_ids = reference.generate(case.messages, case.images, MAX_TOKENS, **options)
        ended = new_ids[-1] in reference.model.generation_config.eos_token_id
        return Answer(
            token_ids=new_ids,
            text=reference.processor.tokenizer.decode(new_ids, skip_special_tokens=True),
            prompt_tokens=len(prompt_ids),
            completion_tokens=len(new_ids),
            finish_reason="stop" if ended else "length",
        )

    def sampled(self, case: Case, choice: int = 0, **sampling: Any) -> list[int]:
        """The one right answer of a seed, whatever computes the logits.

        The expected tokens come from whole-model logits, so they are those of every topology.
        """
        draw = Draw(SamplingParams(**sampling), choice, self.grammars)
        _, new_ids = self.reference.generate(
            case.messages, case.images, MAX_TOKENS, repetition_penalty=1.0, logits_processor=[draw]
        )
        return new_ids

    @cached_property
    def grammars(self) -> Grammars:
        """Of its vocabulary."""
        reference = self.reference
        return Grammars(
            lambda: str(reference.processor.tokenizer.backend_tokenizer.to_str()),
            vocab_size=reference.model.get_output_embeddings().out_features,
            eos_token_ids=reference.model.generation_config.eos_token_id,
        )


class Draw:
    """Makes generate() take what epd's sampler draws from Hugging Face's logits."""

    def __init__(self, sampling: SamplingParams, choice: int, grammars: Grammars) -> None:
        self._sampling = sampling
        self._grammars = grammars
        self._choice = choice
        self._sampler: Sampler | None = None

    def __call__(self, ids: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        if self._sampler is None:
            self._sampler = Sampler(
                vocab_size=logits.shape[-1], device=logits.device, grammars=self._grammars
            )
            self._sampler.add("r", self._sampling, self._choice, ids[0].tolist(), ())
        drawn = self._sampler.sample(logits, ["r"]).ids
        self._sampler.chosen(["r"], drawn.tolist())
        return torch.full_like(logits, -torch.inf).index_fill(1, drawn, 0.0)
