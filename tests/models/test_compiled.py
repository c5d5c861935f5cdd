"""Compiled layers compute what transformers' modules compute, and refuse all others."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from epd.attention import NewTokens, PagedBatch, PagedSequence, SdpaBackend, StepAttention
from epd.attention.row_writes import Deepstack
from epd.models.compiled import decoder as compiled
from epd.models.compiled.decoder import recognised
from epd.models.compiled.kernels import MOST_ROWS, Kernels
from epd.models.compiled.screened import Screened, screened
from epd.models.compiled.streamed import Streamed, can_stream
from epd.models.language import LanguageModel, load_language
from epd.models.packed import PackedLinear
from epd.models.random_checkpoint import Sizes, build_random_checkpoint
from epd.models.rms_norm import RmsNorm
from epd.models.spec import Checkpoint, read_checkpoint
from tests.checkpoints import build
from tests.models.bent import bend_vectors, error

BLOCK, BLOCKS = 16, 90
# With the new token: alone, around the ends of pages and of pieces, and several pieces.
LENGTHS = [1, 2, 15, 16, 17, 33, 256, 257, 530]
SIZES = {
    "qwen2_5_vl": Sizes(layers=2),
    "qwen3_vl": Sizes(head_dim=32),
    "one KV head": Sizes(layers=2, kv_heads=1),
    "no groups": Sizes(layers=2, kv_heads=4),
    "heads of 48": Sizes(layers=2, hidden=192),
    "twelve of a group": Sizes(layers=2, heads=12, kv_heads=1, hidden=384),
}


# Families whose layers are like those of one of the above, under other names.
ALIKE = ("qwen2_vl", "qwen2_5_omni", "llava", "llava_next", "internvl")


@pytest.fixture(scope="session")
def read(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Checkpoint]:
    """The checkpoint of this name, made once."""

    @functools.cache
    def made(name: str) -> Checkpoint:
        folder = tmp_path_factory.mktemp("checkpoints") / "tiny"
        if name in ALIKE:
            build(name, folder)
        else:
            family = name if name.startswith("qwen") else "qwen2_5_vl"
            build_random_checkpoint(folder, family=family, sizes=SIZES[name])
        bend_vectors(folder / "model.safetensors")
        return read_checkpoint(folder)

    return made


@pytest.fixture(scope="session", params=SIZES)
def checkpoint(request: pytest.FixtureRequest, read: Callable[[str], Checkpoint]) -> Checkpoint:
    return read(request.param)


@pytest.fixture
def ours(checkpoint: Checkpoint, cache: Path) -> LanguageModel:
    return load_language(checkpoint, device="cpu", dtype="bfloat16", cache=cache)


@pytest.fixture(scope="session")
def packed(checkpoint: Checkpoint) -> LanguageModel:
    return load_language(checkpoint, device="cpu", dtype="bfloat16")


@pytest.fixture(scope="session")
def exact(checkpoint: Checkpoint) -> LanguageModel:
    return load_language(checkpoint, device="cpu", dtype="float32")


class Steps:
    """New tokens of each sequence, one unless `counts` says otherwise, over random pages. Slots
    nobody has written hold NaN.
    """

    def __init__(
        self, model: LanguageModel, lengths: Sequence[int], counts: Sequence[int] | None = None
    ) -> None:
        counts = counts or [1] * len(lengths)
        generator = torch.Generator().manual_seed(len(lengths))
        shape = (2, model.num_layers, BLOCKS * BLOCK, model.kv_heads, model.head_dim)
        free = torch.randperm(BLOCKS, generator=generator).tolist()
        tables = [[free.pop() for _ in range(-(-length // BLOCK))] for length in lengths]
        written = torch.randn(shape, generator=generator).bfloat16().to(model.dtype)
        self.pages = torch.full_like(written, torch.nan)
        self.new: list[int] = []
        positions: list[int] = []
        for length, count, table in zip(lengths, counts, tables, strict=True):
            slots = [table[at // BLOCK] * BLOCK + at % BLOCK for at in range(length)]
            self.pages[:, :, slots[:-count]] = written[:, :, slots[:-count]]
            self.new += slots[-count:]
            positions += range(length - count, length)
        sequences = map(PagedSequence, counts, lengths, tables)
        self.batch = PagedBatch(tuple(sequences), self.pages[0], self.pages[1], BLOCK)
        self.ids = torch.randint(1000, (len(self.new),), generator=generator)
        self.positions = torch.tensor(positions)

    def run(
        self,
        model: LanguageModel,
        plan: StepAttention[Any] | None = None,
        shift: int = 0,
        deepstack: Deepstack | None = None,
    ) -> torch.Tensor:
        """Last hidden states, new keys and new values, in one row per new token."""
        plan = plan or SdpaBackend().bind(self.batch)
        axes = self.positions + shift
        if model._axes == 3:
            axes = axes + torch.tensor([[0], [3], [7]])
        hidden = model.forward(model.embed(self.ids), axes, plan, deepstack)
        new = self.pages[:, :, self.new].permute(2, 0, 1, 3, 4).flatten(1)
        return torch.cat([hidden, new], 1).float()


class Bent(StepAttention[Any]):
    """A step whose block tables or lengths are wrong."""

    def __init__(self, batch: PagedBatch, bend: Callable[[NewTokens], NewTokens]) -> None:
        super().__init__(SdpaBackend(), batch)
        self._bend = bend

    def new_tokens(self) -> NewTokens:
        return self._bend(super().new_tokens())


@pytest.mark.parametrize("num", [1, 2, 3, 4, 5, 6, 7, 8, 9, 16])
def test_steps_are_as_good_as_with_transformers_layers(
    num: int, ours: LanguageModel, packed: LanguageModel, exact: LanguageModel
) -> None:
    assert ours._compiled is not None and ours._compiled is not None
    lengths = [(7 * i + 3 * num) % 60 + 1 for i in range(num)]
    runs = [Steps(model, lengths).run(model) for model in (ours, packed, exact)]
    assert error(runs[0], runs[2]) < 1.5 * error(runs[1], runs[2]) + 1e-3


def test_lengths_around_the_ends_of_pages_and_pieces(
    ours: LanguageModel, packed: LanguageModel, exact: LanguageModel
) -> None:
    """Row by row: none hides behind the others. All but the new slots stay as they are."""
    steps = [Steps(model, LENGTHS) for model in (ours, packed, exact)]
    before = steps[0].pages.clone()
    runs = [step.run(model) for step, model in zip(steps, (ours, packed, exact), strict=True)]
    for row in range(len(LENGTHS)):
        assert error(runs[0][row], runs[2][row]) < 2 * error(runs[1][row], runs[2][row]) + 1e-3
    after = steps[0].pages.clone()
    after[:, :, steps[0].new] = before[:, :, steps[0].new] = 0
    assert torch.equal(after.nan_to_num(7.0), before.nan_to_num(7.0))


# Of each sequence its tokens, and how many of them are new: whole prompts, chunks behind others,
# single tokens among them, around the ends of pages, of parts of rows, of spans and of chunks.
PREFILLS = {
    "one prompt": ([40], [40]),
    "parts of rows": ([11, 12, 13, 25], [11, 12, 13, 25]),
    "spans and chunks": ([64, 65, 127, 129, 200], [64, 65, 127, 129, 200]),
    "behind others": ([130, 256, 257, 300], [2, 64, 129, 30]),
    "beside single tokens": ([1, 50, 17, 129, 16], [1, 1, 17, 1, 5]),
}


@pytest.mark.parametrize("name", PREFILLS)
def test_prefills_are_as_good_as_with_transformers_layers(
    name: str, ours: LanguageModel, packed: LanguageModel, exact: LanguageModel
) -> None:
    """Row by row. All but the new slots stay as they are."""
    steps = [Steps(model, *PREFILLS[name]) for model in (ours, packed, exact)]
    before = steps[0].pages.clone()
    runs = [step.run(model) for step, model in zip(steps, (ours, packed, exact), strict=True)]
    for found, usual, right in zip(*runs, strict=True):
        assert error(found, right) < 2 * error(usual, right) + 2e-3
    after = steps[0].pages.clone()
    after[:, :, steps[0].new] = before[:, :, steps[0].new] = 0
    assert torch.equal(after.nan_to_num(7.0), before.nan_to_num(7.0))


@pytest.fixture
def many(ours: LanguageModel) -> LanguageModel:
    """Whose prefills are compiled too."""
    assert ours._compiled is not None
    if not ours._compiled._kernels.takes_many:
        pytest.skip("this CPU has no bfloat16 instructions of AVX-512")
    return ours


def test_a_prefill_is_compiled(many: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(many._decoder, "forward", None)
    Steps(many, [40], [40]).run(many)


@pytest.mark.parametrize("name", ALIKE)
def test_layers_under_other_names(
    name: str, read: Callable[[str], Checkpoint], cache: Path
) -> None:
    checkpoint = read(name)
    ours = load_language(checkpoint, device="cpu", dtype="bfloat16", cache=cache)
    packed = load_language(checkpoint, device="cpu", dtype="bfloat16")
    exact = load_language(checkpoint, device="cpu", dtype="float32")
    assert ours._compiled is not None
    for step in ([17, 40, 3], None), ([40, 17], [40, 5]):
        found, usual, right = (Steps(model, *step).run(model) for model in (ours, packed, exact))
        assert error(found, right) < 1.5 * error(usual, right) + 1e-3


def test_a_sliding_window_is_not_compiled(
    read: Callable[[str], Checkpoint], kernels: Kernels, cache: Path
) -> None:
    model = load_language(read("llava_next"), device="cpu", dtype="bfloat16", cache=cache)
    assert recognised(model._decoder)
    model._decoder.config.sliding_window = 64
    assert not recognised(model._decoder)


def test_a_prefill_sees_nothing_behind_a_token(many: LanguageModel) -> None:
    """A prompt in two chunks, or with other tokens at its end, is the same up to there."""
    whole = Steps(many, [150], [150])
    right = whole.run(many)
    other = Steps(many, [150], [150])
    other.ids[100:] = (other.ids[100:] + 1) % 1000
    found = other.run(many)
    assert torch.equal(found[:100], right[:100])
    assert error(found[100:], right[100:]) > 0.05


def test_deepstack_rows_are_added_behind_their_layers(
    many: LanguageModel, packed: LanguageModel, exact: LanguageModel
) -> None:
    levels = many.deepstack_levels
    if not levels:
        pytest.skip("this family adds none")
    torch.manual_seed(3)
    places = torch.tensor([2, 3, 17])
    more = [torch.randn(3, many.hidden_size).bfloat16() for _ in range(levels)]
    found, usual, right = (
        Steps(model, [20], [20]).run(
            model, deepstack=(places, [each.to(model.dtype) for each in more])
        )
        for model in (many, packed, exact)
    )
    assert error(found, right) < 2 * error(usual, right) + 2e-3
    assert error(Steps(many, [20], [20]).run(many), right) > 0.05


def test_a_wrong_page_in_a_prefill_would_be_seen(many: LanguageModel) -> None:
    right = Steps(many, [140, 150], [20, 30]).run(many)
    step = Steps(many, [140, 150], [20, 30])
    assert not error(step.run(many, Bent(step.batch, of_another)), right) < 0.05


@pytest.mark.parametrize("step", [(LENGTHS, None), PREFILLS["spans and chunks"]])
def test_the_number_of_threads_changes_nothing(
    step: Any, ours: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = Steps(ours, *step).run(ours)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert torch.equal(Steps(ours, *step).run(ours), alone)


def of_another(tokens: NewTokens) -> NewTokens:
    tables = tokens.tables.clone()
    tables[-1, 0] = tables[0, 0]
    return replace(tokens, tables=tables)


@pytest.mark.parametrize(
    "bend",
    [of_another, lambda tokens: replace(tokens, lengths=(tokens.lengths - 1).clamp(min=1))],
    ids=["page", "length"],
)
def test_a_wrong_page_or_length_would_be_seen(
    bend: Callable[[NewTokens], NewTokens], ours: LanguageModel
) -> None:
    """Negative control of the comparisons above."""
    right = Steps(ours, [40, 50]).run(ours)
    step = Steps(ours, [40, 50])
    wrong = step.run(ours, Bent(step.batch, bend))
    assert not error(wrong, right) < 0.05


def test_a_wrong_position_would_be_seen(ours: LanguageModel) -> None:
    right = Steps(ours, [40, 50]).run(ours)
    assert error(Steps(ours, [40, 50]).run(ours, shift=1), right) > 0.05


def test_a_bias_or_a_head_norm_left_out_would_be_seen(ours: LanguageModel) -> None:
    right = Steps(ours, [40, 50]).run(ours)
    assert ours._compiled is not None
    first = ours._compiled._decoder.layers[0]
    if first.q_norm is None:
        assert first.qkv.bias is not None
        first.qkv.bias = None
    else:
        first.q_norm = None
    assert error(Steps(ours, [40, 50]).run(ours), right) > 0.005


def test_broken_values_of_one_sequence_do_not_reach_another(ours: LanguageModel) -> None:
    right = Steps(ours, [20, 30, 40]).run(ours)
    step = Steps(ours, [20, 30, 40])
    first = step.batch.sequences[1].blocks[0] * BLOCK
    step.pages[:, :, first] = torch.nan
    found = step.run(ours)
    assert torch.equal(found[[0, 2]], right[[0, 2]])
    assert found[1].isnan().any()


@pytest.mark.parametrize("rows", [1, 2, 3, 7, 8, 9, 12, 13, 100])
@pytest.mark.parametrize("shape", [(32, 2), (96, 64), (64, 130)])
@pytest.mark.parametrize("bias", [True, False])
def test_products(rows: int, shape: tuple[int, int], bias: bool, kernels: Kernels) -> None:
    torch.manual_seed(rows)
    weight, added = torch.randn(shape).bfloat16(), torch.randn(shape[0]).bfloat16()
    x = torch.randn(1, rows, shape[1]).bfloat16()
    found = Streamed(weight, added if bias else None, kernels)(x)
    expected = x.double() @ weight.double().T + (added.double() if bias else 0.0)
    assert found.shape == (1, rows, shape[0]) and found.dtype == torch.bfloat16
    torch.testing.assert_close(found.double(), expected, atol=2**-8, rtol=2**-8)
    if bias:
        other = Streamed(weight, None, kernels)(x)
        assert not torch.allclose(other.double(), expected, atol=2**-8, rtol=2**-8)


@pytest.mark.parametrize("rows", [1, 13, 100])
def test_a_gated_product(rows: int, kernels: Kernels) -> None:
    """As rounded as by torch, but where its exponential and ours round differently."""
    torch.manual_seed(rows)
    product = Streamed(torch.randn(128, 48).bfloat16(), torch.randn(128).bfloat16(), kernels)
    if not product.can_gate:
        pytest.skip("this CPU has no bfloat16 instructions of AVX-512")
    x = torch.randn(2, rows, 48).bfloat16()
    found, expected = product.gated(x), kernels.silu_mul(product(x))
    assert found.shape == (2, rows, 64)
    torch.testing.assert_close(found, expected, atol=0.0, rtol=2**-7)
    assert not Streamed(torch.randn(96, 48).bfloat16(), None, kernels).can_gate


@pytest.mark.parametrize("rows", [1, 3, 40])
def test_a_gated_activation_in_one_pass(rows: int, kernels: Kernels) -> None:
    """As rounded as by torch, but where its exponential and ours round differently."""
    torch.manual_seed(rows)
    joined = (4 * torch.randn(2, rows, 96)).bfloat16()
    gate, up = joined.chunk(2, -1)
    expected = nn.functional.silu(gate) * up
    found = kernels.silu_mul(joined)
    assert found.shape == (2, rows, 48)
    torch.testing.assert_close(found, expected, atol=0.0, rtol=2**-7)
    assert (found == expected).float().mean() > 0.95
    assert not torch.allclose(found, gate * up, rtol=2**-7)


@pytest.mark.parametrize("rows", [1, 3, 40])
def test_a_norm_in_one_pass(rows: int, kernels: Kernels) -> None:
    torch.manual_seed(rows)
    hidden, weight = torch.randn(2, rows, 48).bfloat16(), nn.Parameter(torch.randn(48).bfloat16())
    slow, fast = RmsNorm(weight, 1e-5), RmsNorm(weight, 1e-5, kernels=kernels)
    torch.testing.assert_close(fast(hidden), slow(hidden), atol=0.0, rtol=2**-7)
    assert (fast(hidden) == slow(hidden)).float().mean() > 0.95
    turned = hidden.transpose(0, 1)
    torch.testing.assert_close(fast(turned), slow(turned), atol=0.0, rtol=2**-7)


def test_rows_of_nan_stay_nan_and_reach_no_other(kernels: Kernels) -> None:
    joined = torch.ones(3, 64, dtype=torch.bfloat16)
    joined[1, 5] = torch.nan
    assert kernels.silu_mul(joined).isnan().nonzero().tolist() == [[1, 5]]
    normed = kernels.rms_norm(joined, torch.ones(64, dtype=torch.bfloat16), 1e-5)
    assert normed.isnan().all(1).tolist() == [False, True, False]


def test_infinities_and_what_is_no_number_stay_so(kernels: Kernels) -> None:
    weight = torch.ones(32, 2, dtype=torch.bfloat16)
    x = torch.tensor([[torch.inf, 1.0], [torch.nan, 1.0], [1.0, 1.0]]).bfloat16()
    found = Streamed(weight, None, kernels)(x)
    assert found[0].isinf().all() and found[1].isnan().all() and (found[2] == 2.0).all()


def test_a_product_takes_any_number_of_rows(kernels: Kernels) -> None:
    linear = nn.Linear(64, 96).bfloat16().requires_grad_(False)
    product = PackedLinear([linear], kernels=kernels)
    x = torch.randn(MOST_ROWS + 1, 64).bfloat16()
    assert isinstance(product.streamed, Streamed)
    torch.testing.assert_close(product(x), linear(x), atol=2**-7, rtol=2**-7)
    torch.testing.assert_close(product(x[:-1]), linear(x[:-1]), atol=2**-7, rtol=2**-7)


@pytest.mark.parametrize("shape", [(33, 64), (64, 63)])
def test_what_has_no_whole_tiles_is_packed_as_before(
    shape: tuple[int, int], kernels: Kernels
) -> None:
    assert not can_stream(torch.empty(shape))
    linear = nn.Linear(shape[1], shape[0]).bfloat16().requires_grad_(False)
    assert PackedLinear([linear], kernels=kernels).streamed is None


def test_no_more_memory_is_held_but_for_the_heads_bytes(
    many: LanguageModel, packed: LanguageModel
) -> None:
    """Where one copy of the weights does for all steps."""
    screen = many.vocab_size * (many.hidden_size + 8)
    assert many.weight_bytes == packed.weight_bytes + screen


def heads() -> dict[str, torch.Tensor]:
    """[out, in], each hard in its own way."""
    torch.manual_seed(7)
    usual = 0.02 * torch.randn(960, 64)
    outliers = usual.clone()
    outliers[::7] *= 50
    outliers[:, 3] *= 30
    close = usual[:1] + 1e-4 * torch.randn(960, 64)
    return {
        "usual": usual,
        "outliers": outliers,
        "next to each other": close,
        "all equal": usual[:1].expand(960, -1),
        "equals in pairs": usual.repeat_interleave(2, 0)[:960],
        "nothing": torch.zeros(960, 64),
        "one only": torch.zeros(960, 64).index_fill(0, torch.tensor([700]), 1.0),
    }


@pytest.mark.parametrize("name", heads())
@pytest.mark.parametrize("rows", [1, 2, 3, 5, 8, 13, 32])
def test_the_likeliest_token_is_that_of_all_logits(name: str, rows: int, kernels: Kernels) -> None:
    product = Streamed(heads()[name].bfloat16(), None, kernels)
    found = Screened(product)
    for scale in (1e-3, 1.0, 1e3):
        x = (scale * torch.randn(rows, 64)).bfloat16()
        assert torch.equal(found.likeliest(x), product(x).argmax(-1))


def test_without_its_error_the_screen_would_miss_some(kernels: Kernels) -> None:
    """Negative control: bytes alone do not know the largest."""
    product = Streamed(heads()["next to each other"].bfloat16(), None, kernels)
    found = Screened(product)
    found._error.zero_()
    misses = 0
    for _ in range(50):
        x = torch.randn(8, 64).bfloat16()
        misses += int((found.likeliest(x) != product(x).argmax(-1)).sum())
    assert misses > 0


def test_what_is_not_finite_has_no_likeliest_token(kernels: Kernels) -> None:
    weight = heads()["usual"].bfloat16()
    x = torch.randn(4, 64).bfloat16()
    x[1, 5], x[2, 9] = torch.inf, torch.nan
    found = Screened(Streamed(weight, None, kernels)).likeliest(x)
    assert (found >= 0).tolist() == [True, False, False, True]
    weight[17, 2] = torch.nan
    assert Screened(Streamed(weight, None, kernels)).likeliest(x).tolist() == [-1] * 4


def test_a_head_with_a_bias_or_of_another_kind_is_not_screened(kernels: Kernels) -> None:
    linear = nn.Linear(64, 96).bfloat16().requires_grad_(False)
    assert screened(PackedLinear([linear], kernels=kernels)) is None
    linear = nn.Linear(64, 96, bias=False).bfloat16().requires_grad_(False)
    assert screened(PackedLinear([linear], kernels=kernels)) is not None
    assert screened(PackedLinear([linear])) is None
    assert screened(linear) is None


def test_many_rows_take_the_whole_product(ours: LanguageModel) -> None:
    hidden = torch.randn(MOST_ROWS + 1, ours.hidden_size).bfloat16()
    assert ours.likeliest(hidden) is None
    found = ours.likeliest(hidden[:8])
    assert found is not None
    assert torch.equal(found, ours.logits(hidden[:8]).argmax(-1))


def test_only_few_single_rows_are_compiled_where_the_cpu_widens(
    ours: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prefills, deeper rows and more rows take the usual path there."""
    assert ours._compiled is not None
    monkeypatch.setattr(ours._compiled._kernels, "takes_many", False)
    calls: list[int] = []
    forward = ours._compiled.forward

    def counted(embeds: torch.Tensor, *rest: Any) -> torch.Tensor:
        calls.append(len(embeds))
        return forward(embeds, *rest)

    monkeypatch.setattr(ours._compiled, "forward", counted)
    step = Steps(ours, [20, 30])
    step.run(ours)
    mixed = replace(step.batch, sequences=(PagedSequence(2, 20, step.batch.sequences[0].blocks),))
    step.run(ours, SdpaBackend().bind(mixed))
    Steps(ours, [3] * (MOST_ROWS + 1)).run(ours)
    if ours.deepstack_levels:
        slices = torch.zeros(ours.deepstack_levels, 1, ours.hidden_size, dtype=ours.dtype)
        deeper = (torch.tensor([0]), slices)
        plan = SdpaBackend().bind(step.batch)
        ours.forward(ours.embed(step.ids), step.positions, plan, deeper)
    assert calls == [2]


def test_other_dtypes_are_not_compiled(checkpoint: Checkpoint, cache: Path) -> None:
    assert load_language(checkpoint, device="cpu", dtype="float32", cache=cache)._compiled is None


class Other(nn.Module):
    """A module that does what nobody knows."""


def hooked(decoder: Any) -> None:
    decoder.layers[1].mlp.register_forward_hook(lambda *_: None)


def patched(decoder: Any) -> None:
    decoder.layers[0].self_attn.forward = lambda *_: None


def another_class(decoder: Any) -> None:
    decoder.layers[1].mlp.act_fn = nn.GELU()


def another_module(decoder: Any) -> None:
    decoder.layers[1].router = Other()


def another_epsilon(decoder: Any) -> None:
    decoder.layers[1].post_attention_layernorm.eps = 0.5


def another_width(decoder: Any) -> None:
    decoder.config.intermediate_size += 32


def configured(**values: Any) -> Callable[[Any], None]:
    def change(decoder: Any) -> None:
        for name, value in values.items():
            setattr(decoder.config, name, value)

    return change


def renamed(decoder: Any) -> None:
    decoder.__class__ = type("Qwen9TextModel", (type(decoder),), {})


CHANGES: list[Callable[[Any], None]] = [
    hooked,
    patched,
    another_class,
    another_module,
    another_epsilon,
    another_width,
    renamed,
    configured(hidden_act="gelu"),
    configured(_attn_implementation="sdpa"),
    configured(layer_types=["full_attention", "sliding_attention"]),
]


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_not_known_exactly_is_not_compiled(
    change: Callable[[Any], None], checkpoint: Checkpoint, kernels: Kernels, cache: Path
) -> None:
    model = load_language(checkpoint, device="cpu", dtype="bfloat16", cache=cache)
    for level in model._decoder.layers:  # the hooks of deeper rows come after recognition
        level._forward_hooks.clear()
    assert recognised(model._decoder)
    change(model._decoder)
    assert not recognised(model._decoder)
    assert compiled.compiled_decoder(model._decoder, kernels) is None
