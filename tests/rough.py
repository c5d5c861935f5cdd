"""A link that delays packets, loses some, and lets some overtake others: `tc netem` without it."""

from __future__ import annotations

import heapq
import itertools
import random
import select
import socket
import threading
import time
from dataclasses import dataclass

EVERY_KIND = 0x0003  # ETH_P_ALL
OUTGOING = 4  # PACKET_OUTGOING
PACKET_LEVEL, VNET_HEADER = 263, 15  # SOL_PACKET, PACKET_VNET_HDR
LARGEST = 1 << 17


@dataclass(frozen=True, slots=True)
class Weather:
    """`loss` and `late` are shares of packets; a late one comes `delay_s` later than the others."""

    delay_s: float
    loss: float
    late: float


class RoughLink:
    """Passes packets between two devices of the network that this thread is in.

    Each packet comes with the header of virtio-net: what the sender left to its network card,
    checksums and large segments, is left to the other side in the same way.
    """

    def __init__(self, devices: tuple[str, str], weather: Weather, seed: int) -> None:
        self.lost = self.late = self.passed = 0
        self._weather = weather
        self._random = random.Random(seed)
        self._ends = [self._open(device) for device in devices]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rough")
        self._thread.start()

    def _open(self, device: str) -> socket.socket:
        end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(EVERY_KIND))
        end.setsockopt(PACKET_LEVEL, VNET_HEADER, 1)
        end.bind((device, EVERY_KIND))
        return end

    def _run(self) -> None:
        first, second = self._ends
        other = {first: second, second: first}
        number = itertools.count()
        waiting: list[tuple[float, int, socket.socket, bytes]] = []
        while not self._stop.is_set():
            until = waiting[0][0] - time.monotonic() if waiting else 0.2
            for end in select.select(self._ends, [], [], min(0.2, max(0.0, until)))[0]:
                packet, (_, _, kind, _, _) = end.recvfrom(LARGEST)
                if kind != OUTGOING and (wait := self._fate()) is not None:
                    due = time.monotonic() + wait
                    heapq.heappush(waiting, (due, next(number), other[end], packet))
            while waiting and waiting[0][0] <= time.monotonic():
                _, _, end, packet = heapq.heappop(waiting)
                end.send(packet)
                self.passed += 1

    def _fate(self) -> float | None:
        """How long a packet takes; None: it never comes."""
        if self._random.random() < self._weather.loss:
            self.lost += 1
            return None
        if self._random.random() < self._weather.late:
            self.late += 1
            return 2 * self._weather.delay_s
        return self._weather.delay_s

    def close(self) -> None:
        """No packet passes any more."""
        self._stop.set()
        self._thread.join()
        for end in self._ends:
            end.close()
