"""What choices say: from their places in the sampler to their last tokens, and why they end."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from epd.engine.chunk import Chunk
from epd.engine.kv.blocks import BlockPool
from epd.engine.request import Choice, RequestState, Role, StepResult
from epd.engine.sampler import BROKEN, Sampler
from epd.engine.scheduler import Scheduler
from epd.errors import EpdError, InternalError, Overloaded
from epd.types import RequestKey, TokenLogprobs, TokenRun

Said = tuple[int, TokenLogprobs | None]
"""An id, see sampler.BROKEN, and what is to be told of it."""


class Answers:
    """Of started requests. `release` frees all that is held for one that has ended."""

    def __init__(
        self,
        scheduler: Scheduler,
        sampler: Sampler,
        pool: BlockPool,
        release: Callable[[RequestKey], None],
    ) -> None:
        self._scheduler = scheduler
        self._sampler = sampler
        self._pool = pool
        self._release = release

    def begin(self, state: RequestState) -> None:
        """Its choices get their next tokens from now on.

        Prompt tokens that earlier attempts generated count as generated.
        """
        request = state.request
        own = state.num_prompt - request.first_index
        prompt, generated = state.prompt[:own], state.prompt[own:]
        for choice in state.choices.values():
            self._sampler.add(
                choice.name, request.sampling, choice.number, prompt, generated + choice.tokens
            )

    def take(self, chunk: Chunk, said: Sequence[Said], result: StepResult) -> None:
        """A chunk has landed: `said` to each choice that it samples.

        Nothing is told of those that ended since it was launched, or whose request did.
        """
        state, live = chunk.state, self._scheduler.landed(chunk)
        told = [
            (choice, *each)
            for choice, each, lives in zip(chunk.samples, said, live, strict=True)
            if lives
        ]
        if any(token == BROKEN for _, token, _ in told):
            self.fail(state.key, self._fault([choice for choice, *_ in told]), result)
            return
        for choice, token, logprobs in told:
            self._emit(state, choice, token, logprobs, result)
        if told and state.request.role is Role.PREFILL:
            for choice in state.choices.values():
                self._sampler.forget(choice.name)
        if chunk.samples and self._scheduler.get(state.key) is state:
            self.end_without(state, result)

    def end_choice(self, state: RequestState, choice: Choice) -> None:
        """Nothing more of it is needed. Whoever ends the last one sees to the request."""
        self._scheduler.end_choice(state, choice)
        self._sampler.forget(choice.name)

    def end_without(self, state: RequestState, result: StepResult) -> None:
        """Of a request without choices nothing more comes; what PREFILL holds is still pulled."""
        if not state.choices:
            result.ended.append(state.key)
            if state.request.role is not Role.PREFILL:
                self._release(state.key)

    def lost(self, state: RequestState, result: StepResult) -> None:
        """There is no room for it anywhere, and its blocks are free already."""
        self.forget(state)
        error = Overloaded("no KV block is left to go on with")
        result.failed.append((state.key, error))

    def forget(self, state: RequestState) -> None:
        """Free what a request has besides blocks."""
        if state.request.embeddings is not None:
            state.request.embeddings.close()
        for choice in state.choices.values():
            self._sampler.forget(choice.name)

    def fail(self, key: RequestKey, error: EpdError, result: StepResult) -> None:
        """It ends here."""
        result.failed.append((key, error))
        self._release(key)

    def _fault(self, choices: Sequence[Choice]) -> EpdError:
        """Why there is no token. KV that gives no finite logits is not to be found again."""
        for choice in choices:
            if (fault := self._sampler.fault(choice.name)) is not None:
                return fault
        key, _ = choices[0].name
        self._pool.disown(key)
        return InternalError("the model's logits are not finite")

    def _emit(
        self,
        state: RequestState,
        choice: Choice,
        token: int,
        logprobs: TokenLogprobs | None,
        result: StepResult,
    ) -> None:
        index = state.next_index(choice)
        reason = state.accept(choice, token)
        result.tokens.append(
            TokenRun(
                request=state.key,
                first_index=index,
                token_ids=(token,),
                finish_reason=reason,
                choice=choice.number,
                logprobs=() if logprobs is None else (logprobs,),
            )
        )
        if reason is not None:
            self.end_choice(state, choice)
