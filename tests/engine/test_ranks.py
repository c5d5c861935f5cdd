"""An engine on two ranks says what it says on one, and KV passes between both kinds."""

from __future__ import annotations

from collections import defaultdict
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from epd.config.sections import LanguageConfig
from epd.engine import Engine, EngineRequest, MultiModalEmbeddingData, Role
from epd.engine.ranks.ends import Kind, Place
from epd.engine.ranks.leading import LedModel
from epd.engine.ranks.orders import (
    Discard,
    Expect,
    Lend,
    Meet,
    Order,
    Read,
    Record,
    Replay,
    Take,
    Wipe,
    Withdraw,
    Write,
    from_row,
    to_row,
)
from epd.errors import ConfigError, InternalError
from epd.models.fused import FusedLayer
from epd.models.gated import GatedMlp
from epd.models.language import LanguageModel, load_language
from epd.models.packed import JointLinear
from epd.models.shards import Summed
from epd.models.sizes import refuse_division
from epd.models.spec import Checkpoint, read_checkpoint
from epd.types import ItemKey, ItemLayout, Modality, Prompt, PromptItem, RequestKey, SamplingParams
from tests.checkpoints import BUILDERS, build
from tests.engine.crew import led_model
from tests.engine.processes import two_processes
from tests.engine.recorded import FixedSdpa, Replays

torch.set_num_threads(1)

ROWS = 9
MAX_TOKENS = 12

Model = LanguageModel | LedModel


def checkpoint_of(family: str, tmp_path: Path) -> Checkpoint:
    return read_checkpoint(build(family, tmp_path / family))


def whole(checkpoint: Checkpoint) -> LanguageModel:
    return load_language(checkpoint, device="cpu", dtype="float32")


def asked(model: Model) -> Prompt:
    """A text around an item whose rows nobody's tower made."""
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(model.vocab_size, (40,), generator=generator).tolist()
    layout = ItemLayout(
        modality=Modality.AUDIO,
        token_ids=(5,) * ROWS,
        row_spans=((0, ROWS),),
        width=model.hidden_size * (1 + model.deepstack_levels),
        dtype="float32",
        content_key=b"item",
    )
    item = PromptItem(item=ItemKey("r", 0, 0), encoder="encode-0", layout=layout)
    return Prompt(text=(tuple(ids[:13]), tuple(ids[13:])), items=(item,))


def request_of(
    model: Model, role: Role = Role.FULL, choices: tuple[tuple[int, int], ...] = ()
) -> EngineRequest:
    prompt = asked(model)
    positions, delta = model.positions(prompt)
    rows = MultiModalEmbeddingData(prompt)
    generator = torch.Generator().manual_seed(4)
    width = prompt.items[0].layout.width
    rows.add(0, 0, torch.randn(ROWS, width, generator=generator) * 0.1)
    return EngineRequest(
        key=RequestKey("r", 0),
        token_ids=prompt.token_ids(),
        positions=positions,
        position_delta=delta,
        sampling=SamplingParams(max_tokens=MAX_TOKENS, logprobs=2, prompt_logprobs=1),
        embeddings=None if role is Role.DECODE else rows,
        role=role,
        choices=choices,
    )


def engine_of(model: Model) -> Engine:
    return Engine(model, LanguageConfig(kv_tokens=512, max_step_tokens=32))


def run(engine: Engine, request: EngineRequest) -> list[int]:
    """Its tokens; nothing is left."""
    tokens: list[int] = []
    while engine.has_work:
        result = engine.step()
        assert not result.failed
        tokens += [token for found in result.tokens for token in found.token_ids]
    engine.release(request.key)
    engine.check()
    assert engine.used_blocks == 0
    return tokens


def answer(model: Model) -> list[int]:
    engine, request = engine_of(model), request_of(model)
    assert engine.reserve(request.key, 80) == 0
    engine.start(request)
    return run(engine, request)


# One of each kind of plan: from the configuration, the usual one, with experts, of an own head.
KINDS = ("qwen2_5_vl", "qwen3_vl", "qwen3_omni_moe", "patch_series")


@pytest.mark.parametrize(
    "family",
    [
        *KINDS,
        *(pytest.param(name, marks=pytest.mark.slow) for name in BUILDERS if name not in KINDS),
    ],
)
def test_two_ranks_say_what_one_says(family: str, tmp_path: Path) -> None:
    """Every family, with rows, in chunks, token for token in float32."""
    checkpoint = checkpoint_of(family, tmp_path)
    alone = whole(checkpoint)
    expected = answer(alone)
    with led_model(checkpoint, 2) as model:
        assert answer(model) == expected and len(expected) == MAX_TOKENS
        assert model.part.kv_heads * 2 == model.kv_heads == alone.kv_heads
        assert isinstance(model.part, LanguageModel)
        assert model.part.weight_bytes < alone.weight_bytes


def test_pages_are_copied_and_moved_on_every_rank(tmp_path: Path) -> None:
    """Choices that share a page, and requests that give way to others and come back; also where
    prompts and decodes are launched before others are read."""
    checkpoint = checkpoint_of("qwen2_5_vl", tmp_path)

    def answers(model: Model, **config: Any) -> dict[tuple[str, int], list[int]]:
        engine = Engine(model, LanguageConfig(kv_tokens=160, max_step_tokens=64, **config))
        for name in "ab":
            request = request_of(model)
            sampling = SamplingParams(max_tokens=18, n=2, temperature=1.0, seed=ord(name))
            request = replace(request, key=RequestKey(name, 0), sampling=sampling)
            assert engine.reserve(request.key, len(request.token_ids) + 1) is not None
            engine.start(request)
        found: dict[tuple[str, int], list[int]] = defaultdict(list)
        while engine.has_work:
            for tokens in engine.step().tokens:
                found[tokens.request.request_id, tokens.choice] += tokens.token_ids
        assert engine.num_preempted > 0
        engine.check()
        return found

    expected = answers(whole(checkpoint))
    assert len(expected) == 4 and len({tuple(tokens) for tokens in expected.values()}) == 4
    with led_model(checkpoint, 2) as model:
        assert answers(model) == expected
        assert answers(model, ahead="on") == expected


def test_rows_matter_to_the_answer(tmp_path: Path) -> None:
    """Negative control: with other rows the answer is another."""
    model = whole(checkpoint_of("qwen3_vl", tmp_path))
    engine, request = engine_of(model), request_of(model)
    assert request.embeddings is not None
    expected = answer(model)
    other = MultiModalEmbeddingData(asked(model))
    other.add(0, 0, torch.zeros(ROWS, asked(model).items[0].layout.width))
    engine.reserve(request.key, 80)
    request.embeddings = other
    engine.start(request)
    assert run(engine, request) != expected


@pytest.mark.parametrize("sizes", [(2, 1), (1, 2), (2, 2)])
def test_kv_passes_between_workers_of_any_number_of_ranks(
    sizes: tuple[int, int], tmp_path: Path
) -> None:
    """Prefill on one engine, decode on another, every head in its place."""
    checkpoint = checkpoint_of("qwen3_vl", tmp_path)
    expected = answer(whole(checkpoint))
    with ExitStack() as stack:
        prefill_model, decode_model = (
            whole(checkpoint) if size == 1 else stack.enter_context(led_model(checkpoint, size))
            for size in sizes
        )
        prefill, decode = engine_of(prefill_model), engine_of(decode_model)
        request = request_of(prefill_model, Role.PREFILL)
        num = len(request.token_ids)
        assert prefill.reserve(request.key, num) == 0
        prefill.start(request)
        first: list[int] = []
        while not first:
            first += [token for found in prefill.step().tokens for token in found.token_ids]
        state = request_of(decode_model, Role.DECODE, choices=((0, first[0]),))
        assert decode.reserve(state.key, 80) == 0
        for start, end in ((0, 30), (30, num)):
            for layer in range(decode_model.num_layers):
                kv = prefill.exchange.read(request.key, start, end - start, layer, 1)
                decode.exchange.write(state.key, start, layer, kv)
        decode.start(state)
        assert first + run(decode, state) == expected
        assert run(prefill, request) == []


def test_heads_that_ranks_do_not_divide_are_refused_with_both_numbers(tmp_path: Path) -> None:
    checkpoint = checkpoint_of("qwen3_vl", tmp_path)
    refuse_division(checkpoint, 2)
    with pytest.raises(ConfigError, match=r"tp is 3: .* has 2 KV heads, and 3 does not divide 2"):
        refuse_division(checkpoint, 3)


@pytest.mark.parametrize(
    "order",
    [
        Meet(3, b"a member"),
        Meet(3, b""),
        Lend(7, 3, Place(1, 64, 4096, Kind.DEVICE), Read(0, 8, 1, 2, (4, 5))),
        Withdraw(5),
        Expect(9, 3, Place(5, 0, 4096, Kind.SOCKET), Write(0, 8, 0, 2, ())),
        Take(8, 3, Place(2, 128, 4096, Kind.HOST), Write(0, 8, 1, 2, (4, 5))),
        Discard(3, 5),
        Wipe(192),
        Record(9, (1, 2, 4)),
        Replay(2, (0, 4607182418800017408), (3, 17), ((1,), (2, 5))),
        Replay(1, (-1,), (3,), ((),)),
    ],
)
def test_orders_to_hand_over_arrive_as_they_were_given(order: Order) -> None:
    assert from_row(to_row(order)) == order


@pytest.mark.parametrize(
    "row",
    [
        [],
        [99, 1],
        [0, 1],
        [1, 3, 0, 5],
        [-9],
        [5, 7, 1, 2],
        [5, 0, 1],
        [6, 0, 300],
        [7, 1, 2],
        [8, 1, 2, 0, 0, 8, 0, 3, 0, 8, 1, 2],
    ],
)
def test_what_is_no_order_is_refused(row: list[int]) -> None:
    with pytest.raises(InternalError, match="not an order"):
        from_row(row)


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl", "patch_series"])
def test_recorded_steps_of_two_ranks_say_what_one_rank_says(family: str, tmp_path: Path) -> None:
    """Several choices: batches of two sizes, each replayed on both ranks, whatever was recorded."""
    checkpoint = checkpoint_of(family, tmp_path)
    ours, theirs = Replays(), Replays()

    def answers(engine: Engine, model: Model) -> dict[int, list[int]]:
        request = request_of(model)
        sampling = SamplingParams(max_tokens=MAX_TOKENS, n=3, temperature=1.0, seed=5)
        request = replace(request, sampling=sampling)
        assert engine.reserve(request.key, 100) == 0
        engine.start(request)
        found: dict[int, list[int]] = defaultdict(list)
        while engine.has_work:
            for tokens in engine.step().tokens:
                found[tokens.choice] += tokens.token_ids
        return found

    config = LanguageConfig(kv_tokens=512, max_running=4)
    alone = whole(checkpoint)
    expected = answers(Engine(alone, config), alone)
    with led_model(checkpoint, 2, capture=theirs) as model:
        engine = Engine(model, config, backend=FixedSdpa(), capture=ours)
        assert answers(engine, model) == expected and len(expected) == 3
    assert ours.recorded == theirs.recorded == [4, 2, 1]
    assert ours.replays == theirs.replays and len(ours.replays) >= MAX_TOKENS - 1


def test_a_rank_that_replays_what_it_read_at_first_is_found_out(tmp_path: Path) -> None:
    """Negative control: the follower's inputs count."""
    checkpoint = checkpoint_of("qwen2_5_vl", tmp_path)
    expected = answer(whole(checkpoint))
    with led_model(checkpoint, 2, capture=Replays()) as model:
        config = LanguageConfig(kv_tokens=512, max_step_tokens=32, max_running=4)
        engine = Engine(model, config, backend=FixedSdpa(), capture=Replays())
        request = request_of(model)
        send = model.send
        model.send = lambda order: send(
            replace(order, lengths=(1,) * len(order.lengths))
            if isinstance(order, Replay)
            else order
        )
        assert engine.reserve(request.key, 80) == 0
        engine.start(request)
        assert run(engine, request) != expected


@pytest.mark.parametrize(
    "family",
    [
        "qwen2_5_vl",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("qwen3_vl", "qwen3_omni_moe")),
    ],
)
def test_fused_parts_say_what_the_whole_says(family: str, tmp_path: Path) -> None:
    """Two processes with Gloo between them, joined and fused as on a card, and one that is not."""
    checkpoint = checkpoint_of(family, tmp_path)
    expected = answer(whole(checkpoint))
    assert len(expected) == MAX_TOKENS
    with two_processes(checkpoint, tmp_path / "plain", fused=False) as model:
        assert answer(model) == expected
    with two_processes(checkpoint, tmp_path / "fused", fused=True) as model:
        assert isinstance(model.part, LanguageModel)
        layer = model.part._decoder.layers[0]
        attention: Any = layer.self_attn
        assert type(layer) is FusedLayer and type(layer.self_attn.q_proj) is JointLinear
        assert type(layer.self_attn.o_proj) is Summed
        if family != "qwen3_omni_moe":
            assert type(layer.mlp) is GatedMlp and type(layer.mlp.down_proj) is Summed
        assert answer(model) == expected
        attention.o_proj.part.weight.mul_(-1)
        assert answer(model) != expected  # negative control: this rank's part counts
