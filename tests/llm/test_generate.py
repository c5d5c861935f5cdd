"""`LLM.generate` says what Hugging Face says of a prompt that is written out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import soxr
import torch

import epd
from epd.errors import BadRequest
from tests.checkpoints import build
from tests.cluster.ready_made import rows_of
from tests.corpus.making import moving, scene, tone
from tests.reference import Reference, Video

GREEDY = epd.SamplingParams(temperature=0, max_tokens=8)
PICTURES = [scene(60, 44, seed) for seed in range(3)]
FRAMES = moving(4, 56, 56)
IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"
VIDEO = "<|vision_start|><|video_pad|><|vision_end|>"


def chat(words: str, *kinds: str) -> list[dict[str, Any]]:
    parts = [{"type": kind} for kind in kinds]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": words}]}]


def asked(reference: Reference, words: str, *items: tuple[str, Any]) -> tuple[str, list[int]]:
    """The prompt as it is written, and Hugging Face's new ids."""
    messages = chat(words, *(kind for kind, _ in items))
    seen = [item for _, item in items]
    _, new_ids = reference.generate(messages, seen, max_tokens=8, repetition_penalty=1.0)
    return reference.render(messages), new_ids


def test_the_lines_that_users_of_other_engines_know(llm: epd.LLM, reference: Reference) -> None:
    prompt, expected = asked(reference, "What is the content?", ("image", PICTURES[0]))
    other, others = asked(reference, "What colour is it?", ("image", PICTURES[1]))
    outputs = llm.generate(
        [
            {"prompt": prompt, "multi_modal_data": {"image": PICTURES[0]}},
            {"prompt": other, "multi_modal_data": {"image": PICTURES[1]}},
        ],
        GREEDY,
    )
    assert [o.prompt for o in outputs] == [prompt, other]
    assert [list(o.outputs[0].token_ids) for o in outputs] == [expected, others]
    decoded = reference.processor.tokenizer.decode(expected, skip_special_tokens=True)
    assert outputs[0].outputs[0].text == decoded


def test_several_items_of_several_kinds_take_their_placeholders(
    llm: epd.LLM, reference: Reference
) -> None:
    """In the order of each kind, however the kinds are mixed."""
    clip = Video(FRAMES, tuple(range(4)), 1.0, 4)
    items = (("image", PICTURES[0]), ("video", clip), ("image", PICTURES[1]))
    prompt, expected = asked(reference, "what is all this?", *items)
    assert prompt.count(IMAGE) == 2 and prompt.count(VIDEO) == 1
    data = {"image": PICTURES[:2], "video": list(FRAMES)}
    [found] = llm.generate({"prompt": prompt, "multi_modal_data": data}, GREEDY)
    assert list(found.outputs[0].token_ids) == expected


def test_text_and_token_ids_are_the_same_prompt(llm: epd.LLM, reference: Reference) -> None:
    prompt, expected = asked(reference, "tell me")
    ids = reference.processor.tokenizer(prompt)["input_ids"]
    by_text, by_ids = llm.generate([prompt, {"prompt_token_ids": ids}], GREEDY)
    assert by_text.prompt_token_ids == by_ids.prompt_token_ids == tuple(ids)
    assert list(by_text.outputs[0].token_ids) == expected
    assert by_ids.outputs == by_text.outputs


def test_rows_that_were_computed_before_stand_for_their_pictures(
    llm: epd.LLM, reference: Reference
) -> None:
    """The rows of all pictures behind one another, and their grids."""
    alone = [reference.alone(picture) for picture in PICTURES[:2]]
    data = {
        "image_embeds": torch.cat([rows_of(reference, one) for one in alone]),
        "image_grid_thw": torch.cat([torch.as_tensor(o.tensors["image_grid_thw"]) for o in alone]),
    }
    prompt, expected = asked(
        reference, "what are they?", ("image", PICTURES[0]), ("image", PICTURES[1])
    )
    [found] = llm.generate({"prompt": prompt, "multi_modal_data": {"image": data}}, GREEDY)
    assert list(found.outputs[0].token_ids) == expected


def test_logprobs_are_by_token_id_as_a_chats_are(llm: epd.LLM, reference: Reference) -> None:
    prompt, _ = asked(reference, "tell me")
    params = epd.SamplingParams(temperature=0, max_tokens=4, logprobs=2, prompt_logprobs=1)
    [found] = llm.generate(prompt, params)
    [same] = llm.chat([{"role": "user", "content": "tell me"}], params)
    ours, theirs = found.outputs[0].logprobs, same.outputs[0].logprobs
    assert ours is not None and theirs is not None
    assert [list(place) for place in ours] == [list(place) for place in theirs]
    for place, other in zip(ours, theirs, strict=True):
        assert np.allclose([p.logprob for p in place.values()], [p.logprob for p in other.values()])
    assert found.prompt_logprobs is not None and same.prompt_logprobs is not None
    assert len(found.prompt_logprobs) == len(same.prompt_logprobs) == found.num_prompt_tokens


@pytest.mark.parametrize(
    ("prompt", "data"),
    [("what is it?", {"image": PICTURES[0]}), (IMAGE, {}), (IMAGE, {"image": PICTURES[:2]})],
)
def test_placeholders_and_items_must_be_as_many(
    llm: epd.LLM, prompt: str, data: dict[str, Any]
) -> None:
    with pytest.raises(BadRequest):
        llm.generate({"prompt": prompt, "multi_modal_data": data}, GREEDY)


def test_a_form_is_kept_to(llm: epd.LLM) -> None:
    """A model with random weights has no mind to say either."""
    params = epd.SamplingParams(seed=3, structured_outputs={"choice": ["yes", "no"]})
    [found] = llm.generate("Is it?", params)
    assert found.outputs[0].text in ("yes", "no")
    [free] = llm.generate("Is it?", epd.SamplingParams(seed=3))
    assert free.outputs[0].text not in ("yes", "no")


def test_nothing_is_said_of_the_places_of_a_picture(llm: epd.LLM, reference: Reference) -> None:
    pad = reference.processor.tokenizer.convert_tokens_to_ids("<|image_pad|>")
    params = epd.SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=0)
    prompt = {"prompt": f"a {IMAGE} b", "multi_modal_data": {"image": PICTURES[0]}}
    [found] = llm.generate(prompt, params)
    assert found.prompt_token_ids is not None and found.prompt_logprobs is not None
    rows = [token == pad for token in found.prompt_token_ids]
    assert [place is None for place in found.prompt_logprobs] == [True, *rows[1:]]
    assert sum(rows) > 1


def test_an_empty_batch_is_answered_at_once(llm: epd.LLM) -> None:
    assert llm.generate([], GREEDY) == []


@pytest.mark.slow
def test_sound_in_memory_is_heard_as_hugging_face_hears_it(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Two clips, one of them at another rate than the model's."""
    model = build("qwen2_audio", tmp_path_factory.mktemp("audio") / "tiny")
    reference = Reference(model)
    short, long = tone(0.6), tone(1.1, 22_050, seed=1)
    heard = soxr.resample(long, 22_050, reference.sampling_rate)
    prompt, expected = asked(reference, "what is it?", ("audio", short), ("audio", heard))
    data = {"audio": [(short, 16_000), (torch.from_numpy(long), 22_050)]}
    settings = {"language.kv_tokens": 4096}
    with epd.LLM(model, topology="1E1P1D", dtype="float32", settings=settings) as llm:
        [found] = llm.generate({"prompt": prompt, "multi_modal_data": data}, GREEDY)
    assert list(found.outputs[0].token_ids) == expected
