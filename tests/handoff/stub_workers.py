"""What every stub worker does as a station does it, and the encode worker with its stub tower.

Rows and KV carry labels instead of numbers, so that a receiver can tell whether it got what was
meant for it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from epd.cluster import asked_as
from epd.handoff import DropSends, Pin, RowSender, Send, SendRows, Unpin
from epd.types import ItemKey, ItemLayout, Prefix, RequestKey, Stage
from epd.wire import messages as m

if TYPE_CHECKING:
    from tests.handoff.simulation import Letter, Simulation

PAYLOAD = m.Payload(dtype="float32", shape=(1,), nbytes=4)

Labels = tuple[object, ...]


@dataclass
class Pool:
    """Tokens of KV, all or nothing, as Engine.reserve has it."""

    capacity: int
    held: dict[RequestKey, int] = field(default_factory=dict)

    def reserve(self, key: RequestKey, num: int) -> bool:
        assert key not in self.held
        if num > self.capacity - sum(self.held.values()):
            return False
        self.held[key] = num
        return True

    def grow(self, key: RequestKey) -> bool:
        if sum(self.held.values()) >= self.capacity:
            return False
        self.held[key] += 1
        return True


class Worker:
    """What the stub workers share: whom they know, what waits to be sent in bulk."""

    stages: tuple[Stage, ...]

    def __init__(self, sim: Simulation, name: str, capacity: int) -> None:
        self.sim = sim
        self.name = name
        self.incarnation = sim.next_incarnation()
        self.capacity = capacity
        self.pool = Pool(capacity)
        self.gateways: dict[str, int] = {}
        self.tables: dict[str, dict[str, int]] = {}  # by gateway
        self.view: dict[str, int] = {}  # all of them together
        self.doubted: dict[str, int] = {}  # lost here, named by a table
        self.owed: set[str] = set()
        self._unreachable: set[str] = set()
        self._bulk: deque[tuple[str, RequestKey | ItemKey, Any, Labels]] = deque()

    # ---- what a station does

    def handle(self, letter: Letter) -> None:
        """A message from somebody known."""
        message, peer = letter.message, letter.sender
        if isinstance(message, m.Members):
            self.tables[peer] = {w.name: int(w.incarnation) for w in message.members}
            self._follow()
        elif isinstance(message, m.Leaving):
            self.lose(peer, letter.incarnation)
        elif isinstance(message, m.Forgotten):
            self._forget(peer)
        else:
            self.receive(peer, message, letter.labels)
        self._give_up()

    def lose(self, name: str, incarnation: int) -> None:
        """The connection to a peer or a gateway broke."""
        if self.gateways.get(name) == incarnation:
            del self.gateways[name], self.tables[name]
            self.owed.discard(name)
            self.gateway_lost(name)
            self.sim.register(self, name)
        elif self.view.get(name) == incarnation:
            del self.view[name]
            self.sim.cut(self.name, self.incarnation, name, incarnation)
            if any(table.get(name) == incarnation for table in self.tables.values()):
                self.doubted[name] = incarnation
            self._forget(name)
        self._give_up()

    def meet_again(self, name: str) -> None:
        """As long as a table names it, a peer that was lost here may live."""
        incarnation = self.doubted.pop(name, None)
        if incarnation is not None:
            self.view[name] = incarnation
            self.send(name, m.Forgotten(reason="took you for dead"))

    def _follow(self) -> None:
        wanted: dict[str, int] = {}
        for table in self.tables.values():
            for name in table.keys() - {self.name}:
                wanted[name] = max(table[name], wanted.get(name, 0))
        for name, incarnation in list(self.doubted.items()):
            if wanted.get(name) == incarnation:
                self.meet_again(name)
            else:
                del self.doubted[name]
        gone = [name for name, number in self.view.items() if wanted.get(name) != number]
        self.view = wanted
        for name in gone:
            self._forget(name)

    def _forget(self, name: str) -> None:
        self._bulk = deque(entry for entry in self._bulk if entry[0] != name)
        self.peer_lost(name)

    def _give_up(self) -> None:
        while self._unreachable:
            self._forget(self._unreachable.pop())

    def send(self, to: str, message: Any, labels: Labels = ()) -> None:
        """Who is unknown, or known to be dead, is lost again."""
        self.meet_again(to)
        incarnation = self.view.get(to) or self.gateways.get(to)
        if incarnation is None:
            self._unreachable.add(to)
        else:
            self.sim.post(self.name, self.incarnation, to, incarnation, message, labels)

    def queue(self, to: str, key: RequestKey | ItemKey, message: Any, labels: Labels) -> None:
        """Bulk waits until it can be staged."""
        self._bulk.append((to, key, message, labels))

    def drop_sends(self, key: RequestKey | ItemKey) -> None:
        self._bulk = deque(entry for entry in self._bulk if entry[1] != key)

    def step(self) -> None:
        """Some bulk, then one unit of work."""
        for _ in range(min(3, len(self._bulk))):
            to, _, message, labels = self._bulk.popleft()
            self.sim.activity += 1
            self.send(to, message, labels)
        self.work()
        self._give_up()

    def refuse(self, gateway: str, key: RequestKey, num_tokens: int) -> None:
        """No room now, or ever."""
        never = num_tokens > self.capacity
        self.send(gateway, m.Refused(request=key, reason="full", never=never))
        if not never:
            self.owed.add(gateway)

    def cached(self, key: RequestKey, most: int, prefix: Prefix | None) -> int:
        """Tokens whose KV happens to be here already."""
        if prefix is None:
            return 0
        found = self.sim.cached(f"{self.name} {key.request_id} {key.attempt}", most)
        assert 0 <= found <= most
        return found

    def tell_holding(self) -> None:
        """To every gateway what is held for it."""
        for name in self.gateways:
            holding = self.holding(name)
            if holding.requests or holding.items:
                self.send(name, holding)

    def given_back(self) -> None:
        """Who was refused hears that there is room."""
        owed, self.owed = self.owed, set()
        for gateway in sorted(owed):
            self.send(gateway, m.Room(free_tokens=1))

    # ---- a stage's part

    def receive(self, peer: str, message: Any, labels: Labels) -> None:
        raise AssertionError(message)

    def peer_lost(self, name: str) -> None:
        raise AssertionError(name)

    def gateway_lost(self, name: str) -> None:
        raise AssertionError(name)

    def holding(self, gateway: str) -> m.Holding:
        raise AssertionError(gateway)

    def work(self) -> None:
        """One unit."""

    def check_nothing_held(self) -> None:
        assert not self.pool.held and not self._bulk


class SimEncode(Worker):
    """Rows are labels (request id, item index, row). Nothing unpinned survives `evict`.

    Of items that are held, only the youngest waits; the others are encoded although nobody asked.
    """

    stages = (Stage.ENCODE,)

    def __init__(self, sim: Simulation, name: str, capacity: int) -> None:
        super().__init__(sim, name, capacity)
        self.rows = RowSender()
        self.jobs: deque[tuple[str, m.EncodeItem]] = deque()
        self.owners: dict[ItemKey, str] = {}
        self.held: dict[ItemKey, None] = {}
        self.to_hold: set[ItemKey] = set()
        self.towers: deque[ItemKey] = deque()
        self.made: dict[ItemKey, bool] = {}  # pinned?

    def receive(self, peer: str, message: Any, labels: Labels) -> None:
        match message:
            case m.EncodeItem():
                if self.rows.expect(peer, message.item):
                    self.jobs.append((peer, message))
                    self.owners[message.item] = peer
                    if message.hold:
                        self.to_hold.add(message.item)
            case m.DropItem():
                self.drop(message.item)
            case m.RunTower():
                self.run(message.item)
            case m.PullRows():
                self.run(message.item)
                self.do(self.rows.pull(peer, message))
            case m.ReleaseRows():
                self.do(self.rows.release(peer, message))
            case _:
                raise AssertionError(message)

    def drop(self, item: ItemKey) -> None:
        self.do(self.rows.drop(item))
        self.made.pop(item, None)
        self.to_hold.discard(item)
        self.held.pop(item, None)
        self.jobs = deque(entry for entry in self.jobs if entry[1].item != item)
        self.towers = deque(other for other in self.towers if other != item)

    def peer_lost(self, name: str) -> None:
        self.do(self.rows.peer_lost(name))

    def gateway_lost(self, name: str) -> None:
        for item in self.rows.held_for(name):
            self.drop(item)

    def holding(self, gateway: str) -> m.Holding:
        return m.Holding(requests=(), items=self.rows.held_for(gateway))

    def work(self) -> None:
        self.sim.activity += bool(self.jobs or self.towers)
        if self.jobs:
            owner, job = self.jobs.popleft()
            layout = self.layout(job.item)
            self.send(owner, m.LayoutReady(item=job.item, layout=layout))
            self.made[job.item] = job.wanted
            self.prepared(job.item)
        elif self.towers:
            item = self.towers.popleft()
            self.do(self.rows.encoded(item, self.layout(item).num_rows))
            self.send(self.owners[item], m.ItemDone(item=item))

    def layout(self, item: ItemKey) -> ItemLayout:
        return self.sim.of(item.request_id).layouts[item.index]

    def prepared(self, item: ItemKey) -> None:
        """To the towers, or held until it is asked for."""
        if item not in self.to_hold:
            self.towers.append(item)
            return
        self.held[item] = None
        while len(self.held) > 1:
            self.run(next(iter(self.held)))

    def run(self, item: ItemKey) -> None:
        """Somebody needs it."""
        self.to_hold.discard(item)
        if item in self.held:
            del self.held[item]
            self.towers.append(item)

    def evict(self) -> None:
        """Drop every unpinned item that is done."""
        coming = {*self.towers, *self.held}
        for item in [i for i, pinned in self.made.items() if not pinned and i not in coming]:
            del self.made[item]

    def do(self, instructions: list[Any]) -> None:
        for instruction in instructions:
            match instruction:
                case Send(to, message):
                    self.send(to, message)
                case SendRows():
                    self.serve(instruction)
                case Pin(item) | Unpin(item):
                    if item in self.made:
                        self.made[item] = isinstance(instruction, Pin)
                case DropSends(key):
                    self.drop_sends(key)
                case _:
                    raise AssertionError(instruction)

    def serve(self, rows: SendRows) -> None:
        if rows.item not in self.made:
            pull = m.PullRows(
                request=rows.request,
                item=rows.item,
                first_row=rows.first_row,
                num_rows=rows.num_rows,
            )
            self.do(self.rows.gone(rows.item, "evicted"))
            self.do(self.rows.pull(rows.to, pull))
            return
        end = rows.first_row + rows.num_rows
        for first in range(rows.first_row, end, self.sim.chunk):
            num = min(self.sim.chunk, end - first)
            part = m.EmbeddingData(
                request=rows.request,
                item=rows.item,
                first_row=first,
                num_rows=num,
                payload=PAYLOAD,
            )
            labels = [
                (asked_as(rows.item.request_id), rows.item.index, first + i) for i in range(num)
            ]
            self.queue(rows.to, rows.item, part, tuple(labels))

    def check_nothing_held(self) -> None:
        super().check_nothing_held()
        assert self.rows.num_items == 0
        assert not self.made and not self.held and not self.to_hold
