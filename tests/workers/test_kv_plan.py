"""KV takes what the plan leaves of a GPU, and the plan that comes of it fits."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from epd.config import load_config
from epd.config.sections import KV_BYTES
from epd.errors import ConfigError
from epd.models.spec import Checkpoint, read_checkpoint
from epd.observe.devices import Gpu, Tenant, check_devices
from epd.observe.memory import Where, total
from epd.workers.kv_plan import Worker, plan_kv, with_kv
from epd.workers.memory import needs_of
from tests.checkpoints import build

GIB = 1 << 30
CARD = {"cuda:0": Gpu(total=80 * GIB, free=79 * GIB)}
TWO = {"cuda:0": CARD["cuda:0"], "cuda:1": Gpu(total=40 * GIB, free=39 * GIB)}
# So many may run that KV has no other limit, and little else is needed.
MANY = ("language.max_step_tokens=16", "language.max_running=64000")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return read_checkpoint(build("qwen2_5_vl", tmp_path_factory.mktemp("checkpoints") / "tiny"))


class Plan:
    """What was planned, and what every rank then needs."""

    def __init__(
        self, checkpoint: Checkpoint, roles: str, gpus: Mapping[str, Gpu], *settings: str
    ) -> None:
        config = load_config(None, ["language.cuda_graphs=false", *settings])
        self.workers = [
            Worker(name=role, role=role, placement=config.placement.of(role))
            for role in roles.split()
        ]
        self.kv = plan_kv(config, checkpoint, self.workers, gpus)
        self.tenants = [
            Tenant(
                name=f"{worker.name} {rank}",
                device=device,
                share=worker.placement.share,
                needs=needs_of(
                    worker.role,
                    with_kv(config, self.kv.get(worker.name)),
                    checkpoint,
                    device="cuda",
                    rank=rank,
                ),
            )
            for worker in self.workers
            for rank, device in enumerate(worker.devices("cuda"))
        ]
        check_devices(self.tenants, gpus)

    def used(self, device: str) -> int:
        return sum(total(t.needs, Where.DEVICE) for t in self.tenants if t.device == device)


def test_a_worker_alone_takes_nine_tenths_of_its_card(checkpoint: Checkpoint) -> None:
    plan = Plan(checkpoint, "fused", CARD, *MANY)
    assert plan.used("cuda:0") == pytest.approx(79 * GIB - 8 * GIB, abs=2)
    assert plan.kv["fused"] > 50 * GIB


def test_roles_on_one_card_have_equal_parts_of_what_is_left(checkpoint: Checkpoint) -> None:
    plan = Plan(checkpoint, "encode prefill decode", CARD, *MANY)
    assert plan.used("cuda:0") == pytest.approx(71 * GIB, abs=4)
    assert set(plan.kv) == {"prefill", "decode"} and plan.kv["prefill"] == plan.kv["decode"]


def test_a_share_is_filled_and_the_rest_is_for_those_without(checkpoint: Checkpoint) -> None:
    half = "placement.prefill.share=0.5"
    plan = Plan(checkpoint, "prefill decode", CARD, *MANY, half)
    of = {tenant.name: tenant.num_bytes for tenant in plan.tenants}
    assert of["prefill 0"] == pytest.approx(40 * GIB, abs=2)
    assert of["decode 0"] == pytest.approx((79 - 40 - 8) * GIB, abs=2)


def test_shares_of_a_whole_card_are_scaled_to_what_is_free(checkpoint: Checkpoint) -> None:
    halves = "placement.prefill.share=0.5", "placement.decode.share=0.5"
    plan = Plan(checkpoint, "prefill decode", CARD, *MANY, *halves)
    assert plan.used("cuda:0") == pytest.approx(79 * GIB, abs=4)


def test_ranks_have_equal_parts_of_which_the_smallest_card_decides(checkpoint: Checkpoint) -> None:
    plan = Plan(checkpoint, "decode", TWO, *MANY, "placement.decode.tp=2")
    kv = {
        tenant.device: need.num_bytes
        for tenant in plan.tenants
        for need in tenant.needs
        if need.name == "KV cache"
    }
    assert kv["cuda:0"] == kv["cuda:1"] == plan.kv["decode"] // 2
    assert plan.used("cuda:1") == pytest.approx(35 * GIB, abs=2)


def test_no_more_than_running_requests_can_fill(checkpoint: Checkpoint) -> None:
    per_token = 2 * 4 * 2 * 16 * 4  # K and V, layers, heads, values, float32
    plan = Plan(checkpoint, "decode", CARD, "language.max_running=512")
    assert plan.kv["decode"] == 512 * checkpoint.max_context * per_token > KV_BYTES


@pytest.mark.parametrize("setting", ["language.kv_bytes=5000000", "language.kv_tokens=4096"])
def test_what_is_configured_stays(checkpoint: Checkpoint, setting: str) -> None:
    assert Plan(checkpoint, "prefill decode", CARD, setting).kv == {}


def test_without_a_gpu_nothing_is_planned(checkpoint: Checkpoint) -> None:
    config = load_config(None, [])
    worker = Worker(name="decode-0", role="decode", placement=config.placement.decode)
    assert plan_kv(config, checkpoint, [worker], {}) == {}
    assert config.language.kv_capacity == KV_BYTES


def test_a_card_with_too_little_is_refused_with_the_sums(checkpoint: Checkpoint) -> None:
    small = {"cuda:0": Gpu(total=2 * GIB, free=GIB)}
    with pytest.raises(ConfigError, match=r"cuda:0 would have to hold .* decode 0: KV cache 1"):
        Plan(checkpoint, "decode", small)
