"""The language half computes what the whole Hugging Face model computes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from epd.errors import InternalError
from epd.models import mrope
from epd.models.language import LanguageModel, load_language
from epd.models.random_checkpoint import Sizes, build_random_checkpoint
from epd.models.spec import read_checkpoint
from epd.models.towers import Towers
from epd.types import ItemKey, ItemLayout, Modality, Prompt, PromptItem
from tests.models import stand_in
from tests.models.faults import FAULTS, inflict
from tests.models.generate import Merged, greedy, merged
from tests.models.pictures import messages, pictures, prompt
from tests.reference import Reference


@pytest.mark.parametrize("num", range(7))
def test_positions_from_layouts_equal_get_rope_index(
    num: int, reference: Reference, towers: Towers, language: LanguageModel
) -> None:
    asked, _ = prompt(reference, towers, num)
    found = reference.inputs(messages(num), pictures(num))
    positions, delta = language.positions(asked)
    assert asked.token_ids() == found["input_ids"][0].tolist()
    expected, deltas = reference.model.model.get_rope_index(
        found["input_ids"], found["mm_token_type_ids"], found.get("image_grid_thw")
    )
    assert torch.equal(positions, expected[:, 0]) and positions.dtype == torch.float64
    assert delta == float(deltas)


@given(data=st.data())
@settings(max_examples=60)
def test_positions_of_any_prompt_equal_get_rope_index(
    data: st.DataObject, reference: Reference, language: LanguageModel
) -> None:
    """Text between two pictures is never empty: the templates put tokens around each."""
    side = st.integers(1, 9)
    grids = data.draw(st.lists(st.tuples(side, side), max_size=5))
    lengths = [data.draw(st.integers(1, 30)) for _ in range(len(grids) + 1)]
    if grids:
        lengths[0], lengths[-1] = data.draw(st.integers(0, 30)), data.draw(st.integers(0, 30))
    config = reference.model.config
    asked = Prompt(
        text=tuple((7,) * length for length in lengths),
        items=tuple(picture_item(i, *grid, config.image_token_id) for i, grid in enumerate(grids)),
    )
    ids = torch.tensor([asked.token_ids()])
    expected, deltas = reference.model.model.get_rope_index(
        ids,
        (ids == config.image_token_id).to(torch.int32),
        torch.tensor([(1, 2 * height, 2 * width) for height, width in grids]) if grids else None,
    )
    positions, delta = language.positions(asked)
    assert torch.equal(positions, expected[:, 0])
    assert delta == float(deltas)


def picture_item(index: int, height: int, width: int, token: int) -> PromptItem:
    """A picture of height x width tokens."""
    positions, advance = mrope.pack(mrope.grid(1, height, width))
    layout = ItemLayout(
        modality=Modality.IMAGE,
        token_ids=(token,) * (height * width),
        row_spans=((0, height * width),),
        width=64,
        dtype="float32",
        content_key=b"",
        positions=positions,
        advance=advance,
    )
    return PromptItem(
        item=ItemKey(request_id="r", index=index, attempt=0), encoder="e", layout=layout
    )


@pytest.mark.parametrize("num", [0, 1, 3, 6])
def test_tokens_equal_the_whole_model(
    num: int, reference: Reference, towers: Towers, language: LanguageModel
) -> None:
    asked, items = prompt(reference, towers, num)
    prompt_ids, new_ids = reference.generate(
        messages(num), pictures(num), 8, repetition_penalty=1.0, eos_token_id=-1
    )
    assert asked.token_ids() == prompt_ids
    inputs = merged(language, asked, towers.encode(items))
    assert greedy(language, inputs, *language.positions(asked), 8) == new_ids


def test_logits_equal_the_whole_model(
    reference: Reference, towers: Towers, language: LanguageModel
) -> None:
    asked, items = prompt(reference, towers, 2)
    with torch.inference_mode():
        expected = reference.model(**reference.inputs(messages(2), pictures(2))).logits[0]
    plan = stand_in.Packed([asked.num_tokens])
    positions, _ = language.positions(asked)
    inputs = merged(language, asked, towers.encode(items))
    hidden = language.forward(inputs.embeds, positions, plan, inputs.deepstack)
    assert hidden.shape == (asked.num_tokens, language.hidden_size)
    torch.testing.assert_close(language.logits(hidden), expected, rtol=1e-4, atol=1e-4)
    assert plan.layers == list(range(language.num_layers))


@pytest.mark.parametrize(("family", "fault"), FAULTS, indirect=["family"], scope="session")
def test_a_wrong_input_changes_the_tokens(
    fault: str, reference: Reference, towers: Towers, language: LanguageModel
) -> None:
    """Negative controls: the equality above would not hold by accident."""
    asked, items = prompt(reference, towers, 2)
    right = (towers.encode(items), language.hidden_size, *language.positions(asked))
    answers = []
    for rows, positions, delta in ((right[0], *right[2:]), inflict(fault, *right)):
        inputs = merged(language, asked, rows)
        answers.append(greedy(language, inputs, positions, delta, 8))
    assert answers[0] != answers[1]


def test_sequences_packed_into_one_forward_do_not_see_each_other(
    reference: Reference, towers: Towers, language: LanguageModel
) -> None:
    made = [prompt(reference, towers, num) for num in (0, 2, 1)]
    inputs = [merged(language, asked, towers.encode(items)) for asked, items in made]
    positions = [language.positions(asked)[0] for asked, _ in made]
    lengths = [len(one.embeds) for one in inputs]
    together = language.forward(
        torch.cat([one.embeds for one in inputs]),
        torch.cat(positions, dim=1),
        stand_in.Packed(lengths),
        packed_deepstack(inputs),
    )
    for one, where, part in zip(inputs, positions, torch.split(together, lengths), strict=True):
        plan = stand_in.Packed([len(one.embeds)])
        alone = language.forward(one.embeds, where, plan, one.deepstack)
        torch.testing.assert_close(part, alone, rtol=1e-4, atol=1e-4)


def packed_deepstack(inputs: list[Merged]) -> tuple[torch.Tensor, torch.Tensor] | None:
    """The places and slices of sequences laid end to end."""
    places, slices = [], []
    at = 0
    for one in inputs:
        if one.deepstack is not None:
            places.append(one.deepstack[0] + at)
            slices.append(one.deepstack[1])
        at += len(one.embeds)
    return (torch.cat(places), torch.cat(slices, dim=1)) if places else None


@pytest.mark.parametrize(
    ("family", "head_dim", "levels"),
    [("qwen2_5_vl", 16, 0), ("qwen3_vl", 32, 3)],
    indirect=["family"],
    scope="session",
)
def test_shapes_for_the_kv_cache_are_known(
    head_dim: int, levels: int, language: LanguageModel
) -> None:
    assert (language.num_layers, language.kv_heads, language.head_dim) == (4, 2, head_dim)
    assert language.deepstack_levels == levels
    assert (language.hidden_size, language.vocab_size) == (64, 1088)
    assert language.dtype == torch.float32 and language.device.type == "cpu"


def test_results_may_be_changed_in_place(language: LanguageModel) -> None:
    """Samplers write into logits, engines write rows into embeddings."""
    embeds = language.embed(torch.tensor([1, 2, 3]))
    embeds[1] = 0
    logits = language.logits(embeds)
    logits[0].div_(2.0)
    assert not logits.requires_grad


def test_tied_embeddings_are_the_head(family: str, tmp_path: Path) -> None:
    path = build_random_checkpoint(tmp_path, family=family, sizes=Sizes(tied=True))
    with stand_in.attention():
        model = load_language(read_checkpoint(path), device="cpu", dtype="float32")
    embeds = model.embed(torch.arange(model.vocab_size))
    torch.testing.assert_close(model.logits(embeds), embeds @ embeds.T)


def test_a_layout_of_other_positions_is_refused(language: LanguageModel) -> None:
    layout = ItemLayout(
        modality=Modality.IMAGE,
        token_ids=(7,) * 5,
        row_spans=((0, 5),),
        width=64,
        dtype="float32",
        content_key=b"",
        positions=bytes(12 * 4),
        advance=2,
    )
    item = PromptItem(item=ItemKey(request_id="r", index=0, attempt=0), encoder="e", layout=layout)
    with pytest.raises(InternalError, match="5 tokens with 12 positions"):
        language.positions(Prompt(text=((1,), (2,)), items=(item,)))
