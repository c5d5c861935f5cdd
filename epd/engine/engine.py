"""The language engine of one worker: paged KV, packed steps, continuous batching.

Knows no sockets. The step thread alone calls it. Every request needs a reservation of blocks
before it starts; release() takes everything back in any state.
"""

from __future__ import annotations

import torch

from epd.attention import SdpaBackend
from epd.config.sections import LanguageConfig
from epd.engine.kv.blocks import BlockPool
from epd.engine.kv.cache import KvCache, num_blocks
from epd.engine.language import LanguageModel
from epd.engine.request import EngineRequest, RequestState, Role, StepResult
from epd.engine.runner import ChunkRows, Runner
from epd.engine.sampler import BROKEN, Sampler
from epd.engine.scheduler import Chunk, Scheduler, Step
from epd.errors import BadRequest, EpdError, InternalError, Overloaded
from epd.types import RequestKey, TokenRun


class Engine:
    """Started requests, their blocks, and one forward at a time."""

    def __init__(self, model: LanguageModel, config: LanguageConfig) -> None:
        self._model = model
        blocks = num_blocks(model, config)
        self._pool = BlockPool(num_blocks=blocks, block_size=config.block_size)
        self._cache = KvCache(model, num_blocks=blocks, block_size=config.block_size)
        self._sampler = Sampler(vocab_size=model.vocab_size, device=model.device)
        self._runner = Runner(model, self._cache, self._pool, SdpaBackend(), self._sampler)
        self._scheduler = Scheduler(
            self._pool, max_step_tokens=config.max_step_tokens, max_running=config.max_running
        )
        # [layers, tokens] of a reservation that KV is written into: which of it has landed.
        self._landed: dict[RequestKey, torch.Tensor] = {}

    # ---- capacity

    @property
    def num_tokens_capacity(self) -> int:
        """Tokens that the whole cache holds."""
        return self._pool.num_blocks * self._pool.block_size

    @property
    def free_tokens(self) -> int:
        """Tokens that unreserved blocks hold."""
        return self._pool.num_free * self._pool.block_size

    @property
    def used_blocks(self) -> int:
        """Blocks reserved by someone."""
        return self._pool.num_used

    def fits(self, num_tokens: int) -> bool:
        """Could a request of this size ever be held?"""
        return self._pool.fits(num_tokens)

    def reserve(self, key: RequestKey, num_tokens: int) -> bool:
        """Hold KV for `num_tokens` in all, at once or not at all."""
        return self._pool.reserve(key, num_tokens)

    # ---- the life of a request

    def start(self, request: EngineRequest) -> None:
        """Take a request whose blocks are reserved (and, for DECODE, written)."""
        state = RequestState(request)
        self._check_request(state)
        self._scheduler.add(state)
        at = len(state.token_ids) - state.next_index  # the last ones were generated
        prompt, generated = state.token_ids[:at], state.token_ids[at:]
        self._sampler.add(state.key, request.sampling, 0, prompt, generated)
        self._landed.pop(state.key, None)

    def release(self, key: RequestKey) -> None:
        """Free all that is held for a request, in any state; unknown keys are ignored."""
        state = self._scheduler.remove(key)
        if state is not None and state.request.embeddings is not None:
            state.request.embeddings.close()
        self._sampler.forget(key)
        self._landed.pop(key, None)
        self._pool.release(key)

    @property
    def has_work(self) -> bool:
        """Would step() do something now?"""
        return self._scheduler.has_work

    def step(self) -> StepResult:
        """One forward over whatever is ready. An empty result when nothing is."""
        result = StepResult()
        step = self._scheduler.schedule()
        if step is None:
            return result
        self._fail_starved(step, result)
        chunks = self._with_rows(step, result)
        if chunks:
            sampled = iter(self._runner.execute(chunks))
            for chunk, _ in chunks:
                self._finish_chunk(chunk, next(sampled) if chunk.samples else None, result)
        return result

    # ---- KV for and from other workers

    def read_kv(
        self, key: RequestKey, first_token: int, num_tokens: int, first_layer: int, num_layers: int
    ) -> torch.Tensor:
        """A copy, [2, layers, tokens, kv_heads, head_dim], of KV that was computed here."""
        state, blocks = self._scheduler.get(key), self._pool.table(key)
        end = first_token + num_tokens
        if state is None or blocks is None or not 0 <= first_token < end <= state.num_computed:
            raise InternalError(f"KV of tokens {first_token} to {end} of {key} does not exist here")
        layers = range(first_layer, first_layer + num_layers)
        return self._cache.read(blocks, range(first_token, end), layers)

    def write_kv(
        self, key: RequestKey, first_token: int, first_layer: int, kv: torch.Tensor
    ) -> None:
        """Copy KV that another worker computed into a reservation that has not started."""
        self._cache.check_range(kv)
        end = first_token + kv.shape[2]
        blocks = self._pool.table(key)
        if blocks is None or first_token < 0 or not self._pool.holds(key, end):
            raise InternalError(f"no room is reserved for KV of tokens to {end} of {key}")
        if self._scheduler.get(key) is not None:
            raise InternalError(f"KV written for {key}, which has started")
        self._cache.write(blocks, first_token, first_layer, kv)
        landed = self._landed.get(key)
        if landed is None:
            size = len(blocks) * self._pool.block_size
            landed = self._landed[key] = torch.zeros(self._model.num_layers, size, dtype=torch.bool)
        landed[first_layer : first_layer + kv.shape[1], first_token:end] = True

    # ---- checks

    def check(self) -> None:
        """Nothing is lost, doubled or left behind."""
        self._pool.check()
        self._scheduler.check()
        held = self._pool.keys()
        assert held >= {state.key for state in self._scheduler.states()}
        assert held >= set(self._landed) and held >= set(self._sampler.names())

    def _check_request(self, state: RequestState) -> None:
        request = state.request
        if self._scheduler.get(state.key) is not None:
            raise InternalError(f"{state.key} was started twice")
        if not self._pool.holds(state.key, state.num_prompt):
            raise InternalError(f"{state.key} has no reservation for {state.num_prompt} tokens")
        if not all(0 <= token < self._model.vocab_size for token in state.token_ids):
            raise BadRequest("a token id is outside the vocabulary")
        if request.role is Role.DECODE:
            landed = self._landed.get(state.key)
            if landed is None or int(landed[:, : state.num_prompt].sum()) < (
                self._model.num_layers * state.num_prompt
            ):
                raise InternalError(f"{state.key}: not all KV has landed")
            return
        if request.positions.shape not in {(state.num_prompt,), (3, state.num_prompt)}:
            raise InternalError(f"{state.key}: positions of shape {tuple(request.positions.shape)}")
        if request.embeddings is not None:
            self._check_rows(request.embeddings.kinds)

    def _check_rows(self, kinds: set[tuple[int, str]]) -> None:
        hidden = self._model.hidden_size
        want = str(self._model.dtype).removeprefix("torch.")
        for width, dtype in kinds:
            wanted = hidden * (1 + self._model.deepstack_levels)
            if width != wanted:
                raise InternalError(f"rows of width {width}: this model takes {wanted}")
            if dtype != want:
                raise InternalError(f"rows in {dtype} for a model in {want}")

    # ---- parts of a step

    def _fail_starved(self, step: Step, result: StepResult) -> None:
        for key in step.starved:
            self._fail(key, Overloaded("no KV block is left to go on with"), result)

    def _with_rows(self, step: Step, result: StepResult) -> list[tuple[Chunk, ChunkRows | None]]:
        """Fetch each chunk's rows; a request whose rows cannot be used fails alone."""
        chunks: list[tuple[Chunk, ChunkRows | None]] = []
        for chunk in step.chunks:
            try:
                chunks.append((chunk, self._rows(chunk)))
            except EpdError as error:
                self._fail(chunk.state.key, error, result)
        return chunks

    def _rows(self, chunk: Chunk) -> ChunkRows | None:
        rows = chunk.state.request.embeddings
        if rows is None or not chunk.state.in_prompt:
            return None
        found = rows.gather(chunk.first, chunk.num)
        return None if found is None else ChunkRows(*found)

    def _finish_chunk(self, chunk: Chunk, token: int | None, result: StepResult) -> None:
        state = chunk.state
        if token == BROKEN:
            self._fail(state.key, InternalError("the model's logits are not finite"), result)
            return
        if state.in_prompt:
            end = chunk.first + chunk.num
            result.computed.append((state.key, end))
            if state.request.embeddings is not None:
                state.request.embeddings.drop_before(end)
        self._scheduler.complete(chunk)
        if token is not None:
            self._emit(state, token, result)

    def _emit(self, state: RequestState, token: int, result: StepResult) -> None:
        index = state.next_index
        reason = state.accept(token)
        result.tokens.append(
            TokenRun(request=state.key, first_index=index, token_ids=(token,), finish_reason=reason)
        )
        if reason is not None and state.request.role is not Role.PREFILL:
            self.release(state.key)

    def _fail(self, key: RequestKey, error: EpdError, result: StepResult) -> None:
        result.failed.append((key, error))
        self.release(key)
