"""Verdicts on needs and machines that are only numbers."""

from __future__ import annotations

import pytest

from epd.errors import ConfigError
from epd.observe.memory import Machine, Need, Where, check_fits, parts, size, table, together, total

GIB = 1 << 30
KV = Need(name="KV cache", num_bytes=4 * GIB, settings=("language.kv_bytes",))
BASE = Need(name="interpreter", num_bytes=GIB)
ARENA = Need(
    name="arena", num_bytes=2 * GIB, where=Where.SHARED, settings=("wire.shm_bytes", "wire.x")
)


def test_what_fits_exactly_is_not_refused() -> None:
    needs = [KV, BASE, ARENA]
    check_fits(needs, Machine(host=7 * GIB, shared=2 * GIB), "this worker")
    with pytest.raises(ConfigError):
        check_fits(needs, Machine(host=7 * GIB - 1, shared=2 * GIB), "this worker")


def test_a_refusal_names_the_largest_needs_and_what_lowers_them() -> None:
    with pytest.raises(ConfigError) as refused:
        check_fits([BASE, KV], Machine(host=3 * GIB, shared=0), "this decode worker")
    assert refused.value.message == (
        "this decode worker would need 5.0 GiB of host memory, 3.0 GiB is available; the largest "
        "parts: KV cache 4.0 GiB (lower language.kv_bytes); interpreter 1.0 GiB"
    )


def test_shared_memory_is_host_memory_too_and_has_a_limit_of_its_own() -> None:
    assert total([KV, ARENA], Where.HOST) == 6 * GIB
    with pytest.raises(ConfigError, match=r"2\.0 GiB of shared memory, 1\.0 GiB is available.*"):
        check_fits([KV, ARENA], Machine(host=9 * GIB, shared=GIB), "this worker")


def test_only_the_needs_of_the_memory_that_is_too_small_are_named() -> None:
    with pytest.raises(ConfigError) as refused:
        check_fits([KV, ARENA], Machine(host=9 * GIB, shared=GIB), "this worker")
    assert "arena 2.0 GiB (lower wire.shm_bytes or wire.x)" in refused.value.message
    assert "KV cache" not in refused.value.message


def test_device_memory_is_apart_from_the_host() -> None:
    weights = Need(name="weights", num_bytes=8 * GIB, where=Where.DEVICE, settings=("dtype",))
    check_fits([weights, BASE], Machine(host=GIB, shared=0, device=8 * GIB), "this worker")
    with pytest.raises(ConfigError, match="of device memory"):
        check_fits([weights, BASE], Machine(host=99 * GIB, shared=0, device=GIB), "this worker")
    with pytest.raises(ConfigError, match="of device memory"):
        check_fits([weights], Machine(host=99 * GIB, shared=0), "this worker")


def test_the_table_is_one_line_with_the_largest_first_and_no_empty_needs() -> None:
    line = table(
        [BASE, KV, Need(name="rows", num_bytes=0)], Machine(host=20 * GIB, shared=0, device=None)
    )
    assert line == (
        "memory: total 5.0 GiB of 20.0 GiB available host memory: "
        "KV cache 4.0 GiB, interpreter 1.0 GiB"
    )


def test_needs_of_several_processes_are_added_up_by_purpose() -> None:
    whole = together([[KV, BASE], [KV, BASE, ARENA], [BASE]])
    assert total(whole, Where.HOST) == 2 * 4 * GIB + 3 * GIB + 2 * GIB
    assert parts(whole) == (
        "KV cache in 2 processes 8.0 GiB, interpreter in 3 processes 3.0 GiB, arena 2.0 GiB"
    )


@pytest.mark.parametrize(
    ("num_bytes", "said"),
    [(0, "0.0 KiB"), (1536, "1.5 KiB"), (1 << 20, "1.0 MiB"), (1000 << 20, "1.0 GiB")],
)
def test_sizes_as_people_read_them(num_bytes: int, said: str) -> None:
    assert size(num_bytes) == said
