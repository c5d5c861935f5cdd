"""Our Triton backend against dense attention: interpreted on a CPU, compiled on a card."""

from __future__ import annotations

import pytest
import torch

from epd.attention import SingleTokens, kernels
from epd.attention import triton as backend
from epd.attention.base import tables_and_lengths
from epd.attention.kernels.decode import num_splits
from epd.attention.triton import TritonBackend
from tests.attention.pages import RAGGED, RandomPages

on_a_card = pytest.mark.gpu
NEAR = {torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 2e-2}
# The interpreter takes 10 ms per program: few tokens, few heads.
SHORT = [(1, 1), (40, 1), (3, 3), (37, 7), (19, 2)]


@pytest.fixture(autouse=True)
def interpreted(request: pytest.FixtureRequest) -> None:
    """Where kernels were compiled, those tests alone run that are for a card."""
    if not kernels.interpreted() and request.node.get_closest_marker("gpu") is None:
        pytest.skip("kernels are compiled here")


def check(pages: RandomPages, window: int | None = None, **options: object) -> None:
    """As near as the dtype allows, and not near what another window would give."""
    found = pages.attended(TritonBackend(), window=window, **options)  # type: ignore[arg-type]
    near = NEAR[pages.query.dtype]
    torch.testing.assert_close(found.float(), pages.expected(window), atol=near, rtol=near)
    assert pages.written()
    wrong = (found.float() - pages.expected(3 if window is None else window + 2)).abs().max()
    assert wrong > 10 * near  # negative control


@pytest.mark.parametrize("seed", range(2))
def test_random_ragged_batches_equal_dense_attention(seed: int) -> None:
    """Unwritten slots hold NaN and do not matter; decodes may stand behind chunks."""
    generator = torch.Generator().manual_seed(seed)
    shapes = []
    for _ in range(4):
        kv_len = int(torch.randint(1, 50, (), generator=generator))
        num = int(torch.randint(1, 1 + min(kv_len, 12), (), generator=generator))
        shapes.append((kv_len, num if seed else 1))
    check(RandomPages([(33, 1), *shapes, (50, 1)], seed=seed, heads=4))


@pytest.mark.parametrize(
    ("heads", "kv_heads", "dim"), [(2, 2, 64), (7, 1, 80), (6, 2, 96), (4, 1, 128), (2, 1, 256)]
)
def test_heads_of_all_sizes_and_groups(heads: int, kv_heads: int, dim: int) -> None:
    """80 and 96 fill no tile: what is read beside them is masked."""
    shapes = [(40, 1), (37, 7)]
    check(RandomPages(shapes, heads=heads, kv_heads=kv_heads, dim=dim, blocks=8))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves(dtype: torch.dtype) -> None:
    check(RandomPages(SHORT, dtype=dtype, heads=4, dim=64))


@pytest.mark.parametrize("window", [1, 7])
def test_a_window_hides_what_is_farther_away(window: int) -> None:
    check(RandomPages(SHORT, heads=4), window)


@pytest.mark.parametrize("splits", [2, 8])
def test_a_context_read_in_parts_is_read_whole(
    splits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More parts than a short context has tokens: some are empty."""
    monkeypatch.setattr(backend, "num_splits", lambda **_: splits)
    check(RandomPages([(1, 1), (150, 1), (9, 1)], heads=4, kv_heads=1))
    check(RandomPages([(150, 1)], heads=4, kv_heads=1), 40)


def test_the_number_of_parts_follows_from_shapes() -> None:
    def parts(sequences: int, most_tokens: int) -> int:
        return num_splits(sequences=sequences, kv_heads=8, most_tokens=most_tokens, processors=132)

    assert parts(1, 1 << 17) == 64  # one long context: the whole card reads it
    assert parts(128, 1 << 17) == 1
    assert parts(1, 256) == 2
    assert parts(1, 16) == 1


def test_pages_of_other_sizes() -> None:
    check(RandomPages([(70, 1), (50, 11)], heads=2, block=48, blocks=6))


def test_rotation_in_the_pass_that_writes_keys(device: torch.device) -> None:
    pages = RandomPages(SHORT, heads=4, device=device.type)
    unturned, rotary = pages.unturned()
    found = unturned.attended(TritonBackend(), rotary=rotary)
    torch.testing.assert_close(found, pages.expected(), atol=5e-6, rtol=1e-5)
    wrong = unturned.attended(TritonBackend())
    assert (wrong - pages.expected()).abs().max() > 1e-2  # negative control


def fixed(pages: RandomPages, *, rows: int, width: int) -> SingleTokens:
    """The batch in buffers that are larger than it: what a captured step reads."""
    batch = pages.batch
    known, ends = tables_and_lengths(batch)
    tables = torch.full((rows, width), -1, dtype=torch.int32)
    lengths = torch.zeros(rows, dtype=torch.int32)
    tables[: len(known), : known.shape[1]] = known
    lengths[: len(ends)] = ends
    device = pages.query.device
    return SingleTokens(
        batch.keys, batch.values, batch.block_size, tables.to(device), lengths.to(device)
    )


def test_a_plan_over_fixed_buffers_reads_them_anew() -> None:
    """One plan, two steps: lengths and tables change under it, rows behind the batch stay empty."""
    pages = RandomPages([(20, 1), (33, 1)], heads=4)
    tokens = fixed(pages, rows=3, width=6)
    pages.query = torch.cat([pages.query, pages.query[:, :1]], 1)
    pages.new_keys = torch.cat([pages.new_keys, pages.new_keys[:, :1]], 1)
    pages.new_values = torch.cat([pages.new_values, pages.new_values[:, :1]], 1)
    step = TritonBackend().bind(tokens)

    def run() -> torch.Tensor:
        return step.attend(
            pages.query, pages.new_keys, pages.new_values, layer=1, scaling=pages.scaling
        )

    found = run()
    torch.testing.assert_close(found[:2], pages.expected(), atol=2e-6, rtol=1e-5)
    assert not found[2].any() and pages.written()
    tokens.lengths[1] = 0
    emptied = run()
    assert torch.equal(emptied[0], found[0]) and not emptied[1].any()


@on_a_card
@pytest.mark.parametrize("dtype", list(NEAR))
@pytest.mark.parametrize(
    ("heads", "kv_heads", "dim"), [(28, 4, 128), (8, 8, 64), (6, 2, 80), (8, 1, 256)]
)
@pytest.mark.parametrize("window", [None, 100])
def test_on_a_card(
    dtype: torch.dtype, heads: int, kv_heads: int, dim: int, window: int | None
) -> None:
    shapes = [(3000, 1), *RAGGED, (900, 300), (700, 1)]
    pages = RandomPages(
        shapes, heads=heads, kv_heads=kv_heads, dim=dim, blocks=400, dtype=dtype, device="cuda"
    )
    check(pages, window)
    check(RandomPages([(n, 1) for n in (1, 5000, 17, 800)], blocks=400, dtype=dtype, device="cuda"))


@on_a_card
def test_a_captured_decode_step_is_replayed_with_other_lengths() -> None:
    pages = RandomPages([(300, 1), (1000, 1)], blocks=100, device="cuda", dim=64)
    tokens = fixed(pages, rows=2, width=64)

    def run() -> torch.Tensor:
        return pages.attended(TritonBackend(), batch=tokens)

    run()
    lengths = tokens.lengths.clone()
    tokens.lengths.fill_(1)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = run()
    tokens.lengths.copy_(lengths)
    graph.replay()
    torch.testing.assert_close(out, pages.expected(), atol=2e-6, rtol=1e-5)
