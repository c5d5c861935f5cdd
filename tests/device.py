"""A device that is asked now and works later, as a test lets it; its seconds are of no clock."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Device:
    """`asked` and `done` are seconds of work; `host` are those that the host has waited."""

    asked: float = 0.0
    done: float = 0.0
    host: float = 0.0

    def work(self, seconds: float) -> None:
        """Asked for, and not done."""
        self.asked += seconds

    def run(self, seconds: float) -> None:
        """It works for so long, if it has so much to do."""
        self.done = min(self.asked, self.done + seconds)

    def wait(self, until: float | None = None) -> None:
        """The host waits for all that was asked for, or for so many seconds of it."""
        missing = max(0.0, (self.asked if until is None else until) - self.done)
        self.host += missing
        self.done += missing

    def lap(self) -> DeviceLap:
        """Timed by the device."""
        return DeviceLap(self)

    def host_lap(self) -> HostLap:
        """Timed by the host, for whom asking takes no time."""
        return HostLap(self)


class DeviceLap:
    """A Lap of this device."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._began = self._ended = device.asked

    def end(self) -> None:
        self._ended = self._device.asked

    def done(self) -> bool:
        return self._device.done >= self._ended

    def wait(self) -> None:
        self._device.wait(self._ended)

    @property
    def seconds(self) -> float:
        assert self.done(), "read too early"
        return self._ended - self._began

    def until(self, later: DeviceLap) -> float:
        assert self.done() and later.done()
        return later._ended - self._ended


class HostLap(DeviceLap):
    """What the host's clock would have said."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._began = self._ended = device.host

    def end(self) -> None:
        self._ended = self._device.host

    def done(self) -> bool:
        return True
