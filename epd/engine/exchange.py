"""KV of an engine's requests for other workers, and theirs for it."""

from __future__ import annotations

import torch

from epd.engine.kv.blocks import BlockPool
from epd.engine.kv.cache import KvCache
from epd.engine.kv.landings import Landings
from epd.engine.ranks.leading import LedCache, Lent
from epd.engine.ranks.tasks import Task
from epd.engine.scheduler import Scheduler
from epd.errors import InternalError
from epd.types import RequestKey


class KvExchange:
    """Out of pages that hold it, and into those of reservations. The step thread alone calls it.

    InternalError where the KV, or the room for it, is not there.
    """

    def __init__(
        self, cache: KvCache, pool: BlockPool, scheduler: Scheduler, landings: Landings
    ) -> None:
        self._cache = cache
        self._pool = pool
        self._scheduler = scheduler
        self._landings = landings

    def read(
        self, key: RequestKey, first_token: int, num_tokens: int, first_layer: int, num_layers: int
    ) -> torch.Tensor:
        """A copy, [2, layers, tokens, kv_heads, head_dim], of prompt KV that is here."""
        blocks, tokens = self._computed(key, first_token, num_tokens)
        return self._cache.read(blocks, tokens, range(first_layer, first_layer + num_layers))

    def read_part(
        self, key: RequestKey, first_token: int, num_tokens: int, first_layer: int, num_layers: int
    ) -> torch.Tensor:
        """As read(), of several ranks the first one's heads alone."""
        blocks, tokens = self._computed(key, first_token, num_tokens)
        return self.led.read_part(blocks, tokens, range(first_layer, first_layer + num_layers))

    def lend_parts(
        self,
        key: RequestKey,
        first_token: int,
        num_tokens: int,
        first_layer: int,
        num_layers: int,
        at: Lent,
    ) -> Task:
        """The other ranks lend what read_part() gives of them."""
        blocks, tokens = self._computed(key, first_token, num_tokens)
        layers = range(first_layer, first_layer + num_layers)
        return self.led.lend(blocks, tokens, layers, at)

    def _computed(
        self, key: RequestKey, first_token: int, num_tokens: int
    ) -> tuple[list[int], range]:
        state, blocks = self._scheduler.get(key), self._pool.any_table(key)
        end = first_token + num_tokens
        if state is None or blocks is None or not 0 <= first_token < end <= state.num_computed:
            raise InternalError(f"KV of tokens {first_token} to {end} of {key} does not exist here")
        return blocks, range(first_token, end)

    def write(self, key: RequestKey, first_token: int, first_layer: int, kv: torch.Tensor) -> None:
        """Copy KV that another worker computed into a reservation that has not started."""
        self._cache.check_range(kv)
        tokens = range(first_token, first_token + kv.shape[2])
        self._landings.check_write(key, tokens)
        blocks = self._pool.table(key)
        assert blocks is not None
        self._cache.write(blocks, first_token, first_layer, kv)
        self._landings.wrote(key, tokens, range(first_layer, first_layer + kv.shape[1]))

    def expect_parts(self, num_tokens: int, num_layers: int, at: Lent) -> Task:
        """The other ranks fetch what take_parts() will have them write, if it is called."""
        return self.led.expect(num_tokens, num_layers, at)

    def take_parts(
        self, key: RequestKey, first_token: int, first_layer: int, part: torch.Tensor, at: Lent
    ) -> Task:
        """As write(), with the first rank's heads; the other ranks take theirs."""
        self._cache.check_range(part, self.led.keys.shape[2])
        tokens = range(first_token, first_token + part.shape[2])
        self._landings.check_write(key, tokens)
        blocks = self._pool.table(key)
        assert blocks is not None
        task = self.led.take(blocks, first_token, first_layer, part, at)
        self._landings.wrote(key, tokens, range(first_layer, first_layer + part.shape[1]))
        return task

    @property
    def num_ranks(self) -> int:
        """Processes that this engine computes in."""
        return self._cache.num_ranks if isinstance(self._cache, LedCache) else 1

    @property
    def led(self) -> LedCache:
        """The pages of several ranks."""
        assert isinstance(self._cache, LedCache)
        return self._cache
