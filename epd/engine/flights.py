"""Steps on their way: launched, left to compute, read.

A step that is read late flies while the next one is planned and launched: decodes, first ones too,
and prefill chunks. What its forward writes and reads needs no more care than that, for the device
does one forward after the other: pages that a request gives back, or that others find, and rows
that were gathered, are used by what is launched later. So prompt tokens count as computed once they
are launched, and only what a step says comes late.

Nothing is launched before the step that flies is read where the host has to know its ids first (a
grammar), or where a request has to make room for others or waits to come back.
"""

from __future__ import annotations

from epd.engine.answers import Answers
from epd.engine.chunk import Chunk
from epd.engine.kv.cache import KvCache
from epd.engine.launched import ChunkRows, Launched
from epd.engine.phases import Phases
from epd.engine.request import StepResult
from epd.engine.runner import Runner
from epd.engine.sampler import Sampler
from epd.engine.scheduler import Scheduler, Step
from epd.errors import EpdError


class Flights:
    """Carries out what the scheduler plans. `reads_late`: at most one step flies, else none."""

    def __init__(
        self,
        runner: Runner,
        cache: KvCache,
        scheduler: Scheduler,
        sampler: Sampler,
        answers: Answers,
        phases: Phases,
        *,
        reads_late: bool,
    ) -> None:
        self._runner = runner
        self._cache = cache
        self._scheduler = scheduler
        self._sampler = sampler
        self._answers = answers
        self._phases = phases
        self._reads_late = reads_late
        self._flying: Launched | None = None

    @property
    def any(self) -> bool:
        """Is there a step to read?"""
        return self._flying is not None

    def step(self, result: StepResult, *, hold: bool) -> None:
        """Launch one step, if one is due; then read the one that was flying, or this one.

        `hold`: prompts with media wait.
        """
        before, self._flying = self._flying, None
        if before is None:
            step = self._scheduler.schedule(hold=hold)
        else:
            step = self._scheduler.schedule_ahead(hold=hold) if self._may_fly else None
        self._phases.ended("schedule")
        launched = None if step is None else self._launch(step, before, result)
        if launched is not None and before is None and not self._may_fly:
            self._land(launched, result)
        elif launched is not None and launched.says:
            self._flying = launched
        if before is not None:
            self._land(before, result)
        self._phases.ended("other")

    @property
    def _may_fly(self) -> bool:
        """Whether the host needs no id of a step before it plans the next one."""
        return self._reads_late and not self._sampler.needs_ids

    def _launch(self, step: Step, before: Launched | None, result: StepResult) -> Launched | None:
        for state in step.lost:
            self._answers.lost(state, result)
        for move in step.moves:
            self._cache.move(move)
        chunks = self._with_rows(step, result)
        for chunk, _ in chunks:
            if chunk.choice is None and chunk.samples:
                self._answers.begin(chunk.state)
        self._phases.ended("other")
        if not chunks:
            return None
        self._phases.forward(len(chunks), sum(chunk.num for chunk, _ in chunks))
        launched = self._runner.launch(chunks, before)
        for chunk in launched.chunks:
            self._took_off(chunk, result)
        return launched

    def _with_rows(self, step: Step, result: StepResult) -> list[tuple[Chunk, ChunkRows | None]]:
        """Fetch each chunk's rows; a request whose rows cannot be used fails alone."""
        chunks: list[tuple[Chunk, ChunkRows | None]] = []
        for chunk in step.chunks:
            try:
                chunks.append((chunk, _rows(chunk)))
            except EpdError as error:
                self._answers.fail(chunk.state.key, error, result)
        return chunks

    def _took_off(self, chunk: Chunk, result: StepResult) -> None:
        state = chunk.state
        self._scheduler.launched(chunk)
        if chunk.choice is not None:
            return
        result.computed.append((state.key, state.num_computed))
        if state.request.embeddings is not None:
            state.request.embeddings.drop_before(state.num_computed)
        if not state.in_prompt:
            self._answers.end_without(state, result)

    def _land(self, launched: Launched, result: StepResult) -> None:
        """Read a step, and see what becomes of its requests."""
        outcome = self._runner.read(launched)
        for chunk, first, logprobs in outcome.prompt_logprobs:
            if self._scheduler.get(chunk.state.key) is chunk.state:
                result.prompt_logprobs.append((chunk.state.key, first, logprobs))
        said = zip(outcome.ids, outcome.logprobs, strict=True)
        for chunk in launched.chunks:
            self._answers.take(chunk, [next(said) for _ in chunk.samples], result)


def _rows(chunk: Chunk) -> ChunkRows | None:
    rows = chunk.state.request.embeddings
    if rows is None or chunk.choice is not None:
        return None
    found = rows.gather(chunk.first, chunk.num)
    return None if found is None else ChunkRows(*found)
