"""What training feeds the model is what transformers' own processor and model would make of it."""

from __future__ import annotations

import random
import re
from dataclasses import replace
from typing import Any

import pytest
import torch
from PIL import Image

from demo import collate, language, questions, scenes, sounds
from demo.checkpoint import size
from demo.collate import NO_LABEL, Batch, Collator, Item
from demo.conversations import Conversation, conversation
from demo.facts import Motion, Scene
from demo.seeds import lots
from demo.sizes import FRAME_TOKENS

KINDS = ("picture", "clip", "sound", "two", "both", "text")


@pytest.fixture(scope="module")
def collator(processor: Any) -> Collator:
    return Collator(processor)


def single(kind: str, name: str) -> Conversation:
    """With one turn, or an opening and one turn: what a real prompt can be."""
    found = conversation(kind, lots("collate", kind, name))
    return replace(found, turns=found.turns[:1])


def stock(processor: Any, row: collate.Row, items: list[Item], waves: list[Any]) -> Any:
    """The processor's own reading of the row's text, media and all."""
    text = processor.tokenizer.decode(row.ids)
    text = re.sub(r"(<\|(?:IMAGE|VIDEO|AUDIO)\|>)+", r"\1", text)
    media: dict[str, Any] = {}
    for item in items:
        if isinstance(item.medium, Scene):
            media.setdefault("images", []).append(Image.fromarray(item.data))
        elif isinstance(item.medium, Motion):
            media["videos"] = [torch.from_numpy(item.data).permute(0, 3, 1, 2)]
            media["do_sample_frames"] = False
            media["videos_kwargs"] = {"size": size(FRAME_TOKENS)}
    if waves:
        media["audio"] = waves
    return processor(text=[text], return_tensors="pt", **media)


def drawn(collator: Collator, told: Conversation) -> tuple[list[Item], list[Any]]:
    """The items as the collator draws them, and the samples of their sounds."""
    rng, items, waves = lots("drawn", told.kind), [], []
    for medium in told.media:
        if isinstance(medium, sounds.Heard):
            again = lots("wave")
            waves.append(sounds.sound(medium, again))
            items.append(collator.item(medium, lots("wave")))
        else:
            items.append(collator.item(medium, rng))
    return items, waves


@pytest.mark.parametrize("name", ["a", "b", "c"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_row_is_what_the_processor_and_the_model_make_of_it(
    collator: Collator, processor: Any, model: Any, kind: str, name: str
) -> None:
    told = single(kind, name)
    items, waves = drawn(collator, told)
    row = collator.row(told, items, lots("row", kind, name))
    theirs = stock(processor, row, items, waves)
    assert theirs["input_ids"][0].tolist() == row.ids
    positions = torch.cat([torch.from_numpy(part) for part in row.positions], 1)
    if "pixel_values_videos" in theirs:
        times = positions[0][theirs["input_ids"][0] == model.config.video_token_id]
        theirs["video_second_per_grid"] = torch.tensor([pace_of(sorted(set(times.tolist())))])
    lengths = theirs["feature_attention_mask"].sum(-1) if waves else None
    found, _ = model.model.get_rope_index(
        theirs["input_ids"],
        theirs.get("image_grid_thw"),
        theirs.get("video_grid_thw"),
        theirs["attention_mask"],
        False,
        lengths,
        theirs.get("video_second_per_grid"),
    )
    assert torch.equal(found[:3, 0].long(), positions)
    theirs.pop("mm_token_type_ids", None)
    batch = batch_of(collator, row, items)
    with torch.no_grad():
        labels = batch.labels[:, : len(row.ids)]
        loss = model(**theirs, labels=labels).loss
        hidden = language.hidden_states(model, batch, language.perceived(model, batch))
        mine = language.answers(model, batch, hidden)[0]
    assert float(mine.mean()) == pytest.approx(float(loss), abs=2e-5)


def pace_of(times: list[int]) -> float:
    """Which one the collator has drawn."""
    since = [time - times[0] for time in times]
    return next(
        pace
        for pace in collate.PACES
        if [int(i * pace * collate.PER_SECOND) for i in range(len(times))] == since
    )


def batch_of(collator: Collator, row: collate.Row, items: list[Item]) -> Batch:
    return collator.batch([row], items)


@pytest.mark.parametrize("kind", KINDS)
def test_each_turn_is_learnt_as_if_it_were_alone(collator: Collator, model: Any, kind: str) -> None:
    """Turns of one row must not see each other."""
    told = conversation(kind, lots("apart", kind))
    items, _ = drawn(collator, told)
    together = losses(collator, model, told, items)
    alone = [
        losses(collator, model, replace(told, turns=(turn,), opening=None), items)
        for turn in told.turns[:2]
    ]
    if told.opening is None:
        apart = torch.cat(alone)
        assert torch.allclose(together[: len(apart)], apart, atol=2e-5)
    else:
        first = losses(collator, model, replace(told, turns=told.turns[:1]), items)
        assert torch.allclose(together[: len(first)], first, atol=2e-5)


def losses(collator: Collator, model: Any, told: Conversation, items: list[Item]) -> torch.Tensor:
    row = collator.row(told, items, lots("apart"))
    batch = collator.batch([row], items)
    assert (batch.labels != NO_LABEL).any()
    with torch.no_grad():
        hidden = language.hidden_states(model, batch, language.perceived(model, batch))
        return language.answers(model, batch, hidden)[0]


def test_equal_lots_make_equal_batches_and_others_do_not(collator: Collator) -> None:
    def made(name: str) -> Batch:
        rng = lots("batch", name)
        return collator([conversation(kind, rng) for kind in KINDS], rng)

    first, again, other = made("one"), made("one"), made("two")
    assert torch.equal(first.ids, again.ids) and not torch.equal(first.ids, other.ids)
    assert torch.equal(first.pictures.pixels, again.pictures.pixels)
    assert torch.equal(first.frames.pixels, again.frames.pixels)
    assert torch.equal(first.heard.features, again.heard.features)


def test_parts_of_an_answer_are_about_what_they_name(collator: Collator) -> None:
    rng = random.Random(3)
    for _ in range(60):
        scene = scenes.sampled_scene(rng, num=rng.choice((1, 2, 3)))
        turn = questions.of_picture("describe", scene, rng)
        assert turn is not None
        parts = "".join(part for part, _ in turn.about)
        assert turn.answer.startswith(parts)
        ids = collator.ids(turn.answer)
        assert [each for part, _ in turn.about for each in collator.ids(part)] == ids[:-1]
        assert [place for _, place in turn.about if place] == [
            thing.cell + 1 for thing in scene.things for _ in range(2)
        ]
