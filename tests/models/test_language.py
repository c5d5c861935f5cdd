"""The language half computes what the whole Hugging Face model computes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from epd.errors import InternalError
from epd.models.language import LanguageModel, load_language
from epd.models.random_checkpoint import Sizes, build_random_checkpoint
from epd.models.spec import read_checkpoint
from epd.models.towers import Towers
from epd.types import ItemKey, ItemLayout, Modality, Prompt, PromptItem
from tests.models import stand_in
from tests.models.generate import greedy, merged
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
    assert torch.equal(positions, expected[:, 0]) and positions.dtype == torch.int64
    assert delta == int(deltas)


@pytest.mark.parametrize("num", [0, 1, 3, 6])
def test_tokens_equal_the_whole_model(
    num: int, reference: Reference, towers: Towers, language: LanguageModel
) -> None:
    asked, items = prompt(reference, towers, num)
    prompt_ids, new_ids = reference.generate(
        messages(num), pictures(num), 8, repetition_penalty=1.0, eos_token_id=-1
    )
    positions, delta = language.positions(asked)
    assert asked.token_ids() == prompt_ids
    assert greedy(language, merged(language, towers, asked, items), positions, delta, 8) == new_ids


def test_logits_equal_the_whole_model(
    reference: Reference, towers: Towers, language: LanguageModel
) -> None:
    asked, items = prompt(reference, towers, 2)
    with torch.inference_mode():
        expected = reference.model(**reference.inputs(messages(2), pictures(2))).logits[0]
    plan = stand_in.Packed([asked.num_tokens])
    positions, _ = language.positions(asked)
    hidden = language.forward(merged(language, towers, asked, items), positions, plan)
    assert hidden.shape == (asked.num_tokens, language.hidden_size)
    torch.testing.assert_close(language.logits(hidden), expected, rtol=1e-4, atol=1e-4)
    assert plan.layers == list(range(language.num_layers))


@pytest.mark.parametrize(
    "fault", ["zero rows", "rows of another picture", "1-D positions", "no delta"]
)
def test_a_wrong_input_changes_the_tokens(
    fault: str, reference: Reference, towers: Towers, language: LanguageModel
) -> None:
    """Negative controls: the equality above would not hold by accident."""
    asked, items = prompt(reference, towers, 2)
    positions, delta = language.positions(asked)
    embeds = merged(language, towers, asked, items)
    right = greedy(language, embeds, positions, delta, 8)
    at, length = asked.offsets[0], asked.items[0].layout.num_rows
    if fault == "zero rows":
        embeds[at : at + length] = 0
    elif fault == "rows of another picture":
        embeds[at : at + length] = embeds[asked.offsets[1] :][:length]
    elif fault == "1-D positions":
        positions, delta = torch.arange(asked.num_tokens).expand(3, -1), 0
    else:
        delta = 0
    assert greedy(language, embeds, positions, delta, 8) != right


def test_sequences_packed_into_one_forward_do_not_see_each_other(
    reference: Reference, towers: Towers, language: LanguageModel
) -> None:
    made = [prompt(reference, towers, num) for num in (0, 2, 1)]
    embeds = [merged(language, towers, asked, items) for asked, items in made]
    positions = [language.positions(asked)[0] for asked, _ in made]
    lengths = [len(one) for one in embeds]
    together = language.forward(
        torch.cat(embeds), torch.cat(positions, dim=1), stand_in.Packed(lengths)
    )
    for one, where, part in zip(embeds, positions, torch.split(together, lengths), strict=True):
        alone = language.forward(one, where, stand_in.Packed([len(one)]))
        torch.testing.assert_close(part, alone, rtol=1e-4, atol=1e-4)


def test_shapes_for_the_kv_cache_are_known(language: LanguageModel) -> None:
    assert (language.num_layers, language.kv_heads, language.head_dim) == (4, 2, 16)
    assert (language.hidden_size, language.vocab_size) == (64, 1088)
    assert language.dtype == torch.float32 and language.device.type == "cpu"


def test_results_may_be_changed_in_place(language: LanguageModel) -> None:
    """Samplers write into logits, engines write rows into embeddings."""
    embeds = language.embed(torch.tensor([1, 2, 3]))
    embeds[1] = 0
    logits = language.logits(embeds)
    logits[0].div_(2.0)
    assert not logits.requires_grad


def test_tied_embeddings_are_the_head(tmp_path: Path) -> None:
    path = build_random_checkpoint(tmp_path, sizes=Sizes(tied=True))
    with stand_in.attention():
        model = load_language(read_checkpoint(path), device="cpu", dtype="float32")
    embeds = model.embed(torch.arange(model.vocab_size))
    torch.testing.assert_close(model.logits(embeds), embeds @ embeds.T)


def test_a_layout_whose_grid_disagrees_is_refused(language: LanguageModel) -> None:
    layout = ItemLayout(
        modality=Modality.IMAGE,
        token_ids=(7,) * 5,
        row_spans=((0, 5),),
        width=64,
        dtype="float32",
        content_key=b"",
        grid_thw=(1, 4, 4),
    )
    item = PromptItem(item=ItemKey(request_id="r", index=0, attempt=0), encoder="e", layout=layout)
    with pytest.raises(InternalError, match="5 tokens for a grid"):
        language.positions(Prompt(text=((1,), (2,)), items=(item,)))
