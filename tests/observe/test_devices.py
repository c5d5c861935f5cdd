"""A GPU holds what its tenants need, or the plan is refused with the sums."""

from __future__ import annotations

import pytest

from epd.errors import ConfigError
from epd.observe.devices import Gpu, Tenant, check_devices
from epd.observe.memory import Need, Where

GIB = 1 << 30
GPUS = {"cuda:0": Gpu(total=80 * GIB, free=78 * GIB), "cuda:1": Gpu(total=80 * GIB, free=80 * GIB)}


def tenant(name: str, gib: int, *, device: str = "cuda:0", share: float | None = None) -> Tenant:
    needs = [
        Need(name="weights", num_bytes=(gib - 1) * GIB, where=Where.DEVICE),
        Need(name="KV cache", num_bytes=GIB, where=Where.DEVICE),
        Need(name="interpreter", num_bytes=999 * GIB),
    ]
    return Tenant(name=name, device=device, share=share, needs=needs)


def test_what_fits_is_taken() -> None:
    check_devices([tenant("prefill-0", 40, share=0.5), tenant("decode-0", 38, share=0.5)], GPUS)
    check_devices([tenant("a", 78), tenant("b", 80, device="cuda:1")], GPUS)


def test_tenants_that_fit_alone_but_not_together_are_refused_with_both_sums() -> None:
    with pytest.raises(ConfigError) as refusal:
        check_devices([tenant("prefill-0", 40), tenant("decode-0", 39)], GPUS)
    assert str(refusal.value) == (
        "cuda:0 would have to hold 79.0 GiB, 78.0 GiB of 80.0 GiB is free: "
        "prefill-0: weights 39.0 GiB + KV cache 1.0 GiB = 40.0 GiB; "
        "decode-0: weights 38.0 GiB + KV cache 1.0 GiB = 39.0 GiB"
    )


def test_more_than_a_share_is_refused_however_much_is_free() -> None:
    said = r"weights 40.0 GiB \+ KV cache 1.0 GiB = 41.0 GiB, .* 0.5 of 80.0 GiB = 40.0 GiB"
    with pytest.raises(ConfigError, match=said):
        check_devices([tenant("prefill-0", 41, share=0.5)], GPUS)


def test_shares_of_one_gpu_are_at_most_all_of_it() -> None:
    with pytest.raises(ConfigError, match=r"shares of cuda:0 are 0.6 \+ 0.5 = 1.1"):
        check_devices([tenant("a", 2, share=0.6), tenant("b", 2, share=0.5)], GPUS)


def test_a_device_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigError, match="a is placed on cuda:2; there is cuda:0, cuda:1"):
        check_devices([tenant("a", 2, device="cuda:2")], GPUS)
