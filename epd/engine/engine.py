"""The language engine of one worker: paged KV, packed steps, continuous batching.

Knows no sockets. The step thread alone calls it. Every request needs a reservation of blocks
before it starts; release() takes everything back in any state.
"""

from __future__ import annotations

from typing import Any

from epd.attention import AttentionBackend
from epd.attention.staging import staging_for
from epd.config.sections import LanguageConfig
from epd.engine.answers import Answers
from epd.engine.backend import backend_for
from epd.engine.decode_graphs import Capture, graphs_for
from epd.engine.exchange import KvExchange
from epd.engine.flights import Flights
from epd.engine.kv.blocks import BlockPool
from epd.engine.kv.cache import KvCache, num_blocks, num_host_blocks
from epd.engine.kv.host import HostBlocks
from epd.engine.kv.landings import Landings
from epd.engine.kv.prefixes import PageHashes
from epd.engine.language import LanguageModel
from epd.engine.phases import Phases
from epd.engine.ranks.leading import LedCache, LedModel
from epd.engine.request import EngineRequest, RequestState, Role, StepResult
from epd.engine.runner import Runner
from epd.engine.sampler import Sampler
from epd.engine.scheduler import Scheduler
from epd.errors import BadRequest, InternalError
from epd.grammar import Grammars
from epd.types import Prefix, RequestKey


class Engine:
    """Started requests, their blocks, and one forward at a time.

    On a GPU a step is left to compute while the next one is planned and launched, see Flights.
    """

    def __init__(
        self,
        model: LanguageModel,
        config: LanguageConfig,
        grammars: Grammars | None = None,
        *,
        backend: AttentionBackend[Any] | None = None,
        capture: Capture | None = None,
    ) -> None:
        """`capture` records decode steps; CUDA graphs unless given, where `backend` can be."""
        self._model = model
        self._prefix_cache = config.prefix_cache
        size, blocks, host = (
            config.block_size,
            num_blocks(model, config),
            num_host_blocks(model, config),
        )
        self._pool = BlockPool(num_blocks=blocks, block_size=size)
        self._host = HostBlocks(host)
        self._cache: KvCache
        if isinstance(model, LedModel):
            self._cache = LedCache(model, num_blocks=blocks, block_size=size, num_host_blocks=host)
        else:
            self._cache = KvCache(model, num_blocks=blocks, block_size=size, num_host_blocks=host)
        self._sampler = Sampler(vocab_size=model.vocab_size, device=model.device, grammars=grammars)
        self._phases = Phases()
        backend = backend or backend_for(model, config)
        self._attention, staging = backend.name, staging_for(model.device)
        graphs = graphs_for(model, self._cache, backend, staging, config, capture)
        runner = Runner(
            model, self._cache, self._pool, backend, self._sampler, staging, self._phases, graphs
        )
        self._scheduler = Scheduler(
            self._pool,
            self._host,
            max_step_tokens=config.step_tokens(model.device.type),
            max_running=config.max_running,
        )
        self._answers = Answers(self._scheduler, self._sampler, self._pool, self.release)
        on_gpu = model.device.type == "cuda"
        self._flights = Flights(
            runner,
            self._cache,
            self._scheduler,
            self._sampler,
            self._answers,
            self._phases,
            reads_late=on_gpu if config.ahead == "auto" else config.ahead == "on",
        )
        # Of reservations that have not started: what was written, what their pages are known by.
        self._landings = Landings(model.num_layers)
        self._exchange = KvExchange(self._cache, self._pool, self._scheduler, self._landings)
        self._prefixes: dict[RequestKey, Prefix] = {}
        # Requests whose last choice was ended from outside, until a step says so.
        self._ended: dict[RequestKey, None] = {}

    @property
    def attention(self) -> str:
        """The attention backend that was chosen."""
        return self._attention

    @property
    def exchange(self) -> KvExchange:
        """KV for and from other workers."""
        return self._exchange

    # ---- capacity

    @property
    def num_tokens_capacity(self) -> int:
        """Tokens that the whole cache holds."""
        return self._pool.num_blocks * self._pool.block_size

    @property
    def free_tokens(self) -> int:
        """Tokens that fit into blocks nobody holds, cached ones too."""
        return self._pool.num_free * self._pool.block_size

    @property
    def num_blocks(self) -> int:
        """All there are."""
        return self._pool.num_blocks

    @property
    def used_blocks(self) -> int:
        """Blocks held by requests."""
        return self._pool.num_used

    @property
    def cached_blocks(self) -> int:
        """Blocks that nobody holds, kept for prompts that begin alike."""
        return self._pool.num_cached

    @property
    def host_blocks_used(self) -> int:
        """Blocks of host memory that hold KV of preempted requests."""
        return self._host.num_used

    @property
    def num_preempted(self) -> int:
        """How often a request moved to host memory, since the start."""
        return self._scheduler.num_preempted

    @property
    def seconds(self) -> dict[str, float]:
        """Where the time of all steps went, by phase."""
        return self._phases.seconds

    @property
    def counts(self) -> dict[str, int]:
        """Forwards ("steps"), and the sequences and tokens in them, since the start."""
        return self._phases.counts

    def fits(self, num_tokens: int) -> bool:
        """Could a request of this size ever be held?"""
        return self._pool.fits(num_tokens)

    def reserve(
        self,
        key: RequestKey,
        num_tokens: int,
        prefix: Prefix | None = None,
        *,
        most_cached: int = 0,
    ) -> int | None:
        """Hold KV for `num_tokens` in all, at once or not at all.

        How many of the first tokens, at most `most_cached`, have KV already, whole pages; None
        where there is no room, or where preempted requests wait for it.
        """
        if self._scheduler.any_preempted:
            return None
        if prefix is None or not self._prefix_cache:
            found = self._pool.reserve(key, num_tokens)
        else:
            hashes = PageHashes(prefix, block_size=self._pool.block_size)
            found = self._pool.reserve(key, num_tokens, hashes.leading(most_cached))
        if found is None:
            return None
        if prefix is not None and self._prefix_cache:
            self._prefixes[key] = prefix
        cached = found * self._pool.block_size
        self._landings.expect(
            key, cached, self._pool.blocks_for(num_tokens) * self._pool.block_size
        )
        return cached

    # ---- the life of a request

    def start(self, request: EngineRequest) -> None:
        """Take a request whose blocks are reserved. DECODE: all KV but the cached is written."""
        key = request.key
        if self._scheduler.get(key) is not None:
            raise InternalError(f"{key} was started twice")
        if not self._pool.holds(key, len(request.token_ids)):
            raise InternalError(f"{key} has no reservation for {len(request.token_ids)} tokens")
        state = RequestState(
            request,
            cached=self._landings.cached(key),
            prefix=self._prefixes.get(key),
            block_size=self._pool.block_size,
        )
        self._check_request(state)
        if request.embeddings is not None:
            request.embeddings.skip_before(state.num_computed)
        self._scheduler.add(state)
        if request.role is Role.DECODE:
            self._answers.begin(state)
        self._landings.forget(key)
        self._prefixes.pop(key, None)

    def release(self, key: RequestKey) -> None:
        """Free all that is held for a request, in any state; unknown keys are ignored."""
        state = self._scheduler.remove(key)
        if state is not None:
            self._answers.forget(state)
        self._landings.forget(key)
        self._prefixes.pop(key, None)
        self._ended.pop(key, None)
        self._pool.release(key)

    def end_choice(self, key: RequestKey, choice: int) -> None:
        """No more of this choice is needed; unknown ones are ignored."""
        state = self._scheduler.get(key)
        found = None if state is None else state.choices.get(choice)
        if state is None or found is None:
            return
        self._answers.end_choice(state, found)
        if not state.choices and state.request.role is not Role.PREFILL:
            self.release(key)
            self._ended[key] = None

    @property
    def num_requests(self) -> int:
        """That generate, or have prompt tokens that could be computed."""
        return self._scheduler.num_requests

    @property
    def num_arriving(self) -> int:
        """Of these, those with prompt tokens of media."""
        return self._scheduler.num_arriving

    @property
    def has_work(self) -> bool:
        """Would step() do something now?"""
        return bool(self._ended) or self._flights.any or self._scheduler.has_work

    def step(self, *, hold: bool = False) -> StepResult:
        """One forward over whatever is ready. An empty result when nothing is.

        `hold`: prompts with media wait. Where the step before this one was left to compute, that is
        read, and this one is left.
        """
        self._phases.begin()
        result = StepResult(ended=list(self._ended))
        self._ended.clear()
        self._flights.step(result, hold=hold)
        return result

    # ---- checks

    def check(self) -> None:
        """Nothing is lost, doubled or left behind."""
        self._pool.check()
        self._host.check()
        self._scheduler.check()
        states = self._scheduler.states()
        here = {state.key for state in states} - self._host.keys()
        assert self._pool.keys() == here | self._landings.keys(), "blocks of nobody"
        assert not here & self._landings.keys() and self._prefixes.keys() <= self._landings.keys()
        live = {choice.name for state in states for choice in state.choices.values()}
        assert set(self._sampler.names()) <= live, "sampler slots of nobody"

    def _check_request(self, state: RequestState) -> None:
        request = state.request
        ids = [*state.prompt, *(token for _, token in request.choices)]
        if not 0 <= min(ids) <= max(ids) < self._model.vocab_size:
            raise BadRequest("a token id is outside the vocabulary")
        if request.role is Role.DECODE:
            if not self._landings.complete(state.key, state.num_prompt):
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
