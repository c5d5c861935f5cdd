"""Which language workers serve a request: of those with little load the one that has most of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence, Set
from dataclasses import dataclass

from epd.cluster.encoders import Encoders, Needs
from epd.cluster.expected import Expected
from epd.cluster.membership import Membership
from epd.errors import Unavailable
from epd.types import Member, Stage

SLACK = 4
"""What a longer prefix is worth: so many requests more, on both workers together."""

Pair = tuple[Member, Member]


@dataclass(frozen=True, slots=True)
class Placed:
    """`decode` None: the prefill worker is fused and keeps the request."""

    prefill: str
    decode: str | None

    @property
    def names(self) -> set[str]:
        """Both of them."""
        return {self.prefill} if self.decode is None else {self.prefill, self.decode}


class Placement:
    """Counts what was sent where and has not ended; ties go to the worker used longest ago."""

    def __init__(self, membership: Membership) -> None:
        self.expected = Expected(membership)
        self.encoders = Encoders(membership)
        self._membership = membership
        self._load: Counter[str] = Counter()
        self._used: dict[str, int] = {}
        self._clock = 0

    def pools(self, items: Iterable[Needs]) -> set[str]:
        """Pools that serve requests with such items. Unavailable names what nobody serves."""
        found = {prefill.pool for prefill, _ in self._pairs()}
        for needs in items:
            found &= {member.pool for member in self.encoders.serving(needs)}
        if not found:
            raise Unavailable("no pool of workers serves all stages")
        return found

    def language(
        self,
        num_tokens: int,
        refused_by: set[str],
        pools: set[str] | None = None,
        blocks: Sequence[bytes] = (),
        apart: Set[frozenset[str]] = frozenset(),
        shunned: Collection[str] = (),
    ) -> Placed | None:
        """Workers for one prompt with KV for `num_tokens`, or None when all of them have refused.

        Too small ones only where all are, and pairs that are `apart`, names of workers that could
        not reach each other, only where there is no other. `blocks` are the prompt's hashes: among
        pairs with little load the longest expected prefix wins, prefill's first, for it saves
        computing. Workers that are `shunned` come last. Unavailable names the stage that nobody
        serves.
        """
        pairs = self._pairs(pools)
        pairs = [p for p in pairs if frozenset(m.name for m in p) not in apart] or pairs
        roomy = [pair for pair in pairs if min(m.kv_tokens for m in pair) >= num_tokens] or pairs
        willing = [pair for pair in roomy if refused_by.isdisjoint(m.name for m in pair)]
        if not willing:
            return None
        willing = [p for p in willing if not any(m.name in shunned for m in p)] or willing
        most = min(self._pair_load(pair) for pair in willing) + SLACK
        light = [pair for pair in willing if self._pair_load(pair) <= most]
        names = {member.name for pair in light for member in pair}
        kept = {name: self.expected.tokens(name, blocks) for name in names}

        def worth(pair: Pair) -> list[int]:
            used = [self._used.get(m.name, 0) for m in pair]
            return [*(-kept[m.name] for m in pair), self._pair_load(pair), *used]

        prefill, decode = min(light, key=worth)
        return Placed(prefill.name, None if decode is prefill else decode.name)

    def pool(self, placed: Placed) -> str:
        """Where that is."""
        member = self._membership.get(placed.prefill)
        assert member is not None
        return member.pool

    def longest(self, blocks: Sequence[bytes], pools: set[str]) -> int:
        """Tokens of the longest beginning of a prompt that some prefill worker should have."""
        members = self._membership.serving(Stage.PREFILL)
        found = (self.expected.tokens(m.name, blocks) for m in members if m.pool in pools)
        return max(found, default=0)

    def _pairs(self, pools: set[str] | None = None) -> list[Pair]:
        """Every prefill worker with every decode worker it works with; a fused one with itself."""
        prefills = self._membership.serving(Stage.PREFILL, pools=pools)
        if not prefills:
            raise Unavailable("no prefill worker is alive")
        pairs = [(m, decode) for m in prefills for decode in self._membership.decoders(m, pools)]
        if not pairs:
            raise Unavailable("no decode worker is alive")
        return pairs

    def _pair_load(self, pair: Pair) -> int:
        return sum(self._load[member.name] for member in pair)

    def began(self, name: str) -> None:
        """Something was sent to this worker."""
        self._clock += 1
        self._used[name] = self._clock
        self._load[name] += 1

    def ended(self, name: str) -> None:
        """It has ended there."""
        self._load[name] -= 1
        if self._load[name] <= 0:
            del self._load[name]

    def gone(self, name: str) -> None:
        """The worker left; a successor of its name starts with nothing."""
        self._load.pop(name, None)
        self._used.pop(name, None)
        self.expected.forget(name)
        self.encoders.gone(name)
