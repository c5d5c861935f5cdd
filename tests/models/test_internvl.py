"""InternVL: a video's text merges with the text before it, and a client may choose the tiles."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.pre_tokenizers import Metaspace

from epd.errors import BadRequest
from epd.media.decoded import VideoInfo
from epd.models.plain_text import PlainText
from epd.types import MediaOptions, Modality
from tests.checkpoints import build, sentencepiece_like
from tests.models import halves
from tests.models.halves import Halves, resolve
from tests.models.llava_chats import Part, Whole, clip, picture_part


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("internvl", tmp_path_factory.mktemp("checkpoints") / "internvl")


@pytest.fixture(scope="module")
def whole(path: Path) -> Whole:
    return Whole(path)


@pytest.fixture(scope="module")
def both(path: Path) -> Halves:
    return halves.load(path)


ENDINGS = ["", " ", "a", "the", ":", "7", "\n", "  ", "é", "日", "x\n\n", "Frame", "Frame1", "if "]


@pytest.mark.parametrize("ending", ENDINGS, ids=repr)
def test_whatever_stands_before_a_video_the_ids_are_hugging_faces(
    ending: str, whole: Whole, both: Halves
) -> None:
    parts: list[Part] = ["Look at this" + ending, clip(2), "and" + ending, clip(2, seed=5), "end"]
    chat = whole.chat(parts)
    items = [
        both.prepare(Modality.VIDEO, item, text_before=before)
        for item, before in zip(chat.items, chat.before, strict=True)
    ]
    found = resolve(chat.text, items).token_ids()
    assert found == whole.inputs(parts)["input_ids"][0].tolist()


def test_some_texts_do_merge(both: Halves) -> None:
    """Else the test above would show nothing."""
    merged = [
        both.prepare(Modality.VIDEO, clip(1), text_before="Look" + ending).layout.replaces_left
        for ending in ENDINGS
    ]
    assert any(merged) and not all(merged)


@given(before=st.text(max_size=40))
@settings(max_examples=200)
def test_appended_text_is_tokenised_as_a_whole(before: str, both: Halves) -> None:
    tokenizer = whole_tokenizer(both)
    plain = PlainText(tokenizer)
    old = plain.encode(before)
    ids, replaced = plain.appended(before, "Frame1: ")
    assert old[: len(old) - replaced] + ids == plain.encode(before + "Frame1: ")


def whole_tokenizer(both: Halves) -> Any:
    return Tokenizer.from_file(str(both.checkpoint.path / "tokenizer.json"))


def test_what_looks_like_a_special_token_before_a_video_is_text(both: Halves) -> None:
    special = both.prepare(Modality.VIDEO, clip(1), text_before="a <img> <video>")
    assert special.layout.num_rows == 4 and special.layout.replaces_left <= 1
    tokenizer = whole_tokenizer(both)
    plain = PlainText(tokenizer, also=["<tool_call>"])
    names = ("<img>", "<|im_end|>", "<video>", "<tool_call>")
    assert not {tokenizer.token_to_id(name) for name in names} & set(plain.encode("".join(names)))
    added = tokenizer.token_to_id("</tool_call>")
    assert plain.encode("a</tool_call>b")[1] == added


def test_plain_text_is_tokenised_as_inside_a_prompt() -> None:
    """Where the beginning of a prompt is treated in another way: here the text is not there."""
    tokenizer = sentencepiece_like.build_tokenizer({}, template="", max_context=99)
    backend = tokenizer.backend_tokenizer
    backend.normalizer = None
    backend.pre_tokenizer = Metaspace(prepend_scheme="first", split=False)
    inside = backend.encode("</s>Frame1: ", add_special_tokens=False).ids[1:]
    assert PlainText(backend).encode("Frame1: ") == inside


# ---- settings that a client may choose


def prepare(both: Halves, **chosen: Any) -> int:
    options = MediaOptions(processor=json.dumps(chosen, sort_keys=True))
    return len(
        both.prepare(Modality.IMAGE, picture_part(300, 100), options=options).inputs["pixel_values"]
    )


@pytest.mark.parametrize(
    ("chosen", "tiles"),
    [
        ({}, 4),
        ({"max_patches": 2}, 3),
        ({"max_patches": 1}, 1),
        ({"crop_to_patches": False}, 1),
        ({"min_patches": 12, "max_patches": 12}, 13),
    ],
)
def test_tiles_are_as_many_as_the_client_wants(
    chosen: dict[str, Any], tiles: int, whole: Whole, both: Halves
) -> None:
    assert prepare(both, **chosen) == tiles
    image = picture_part(300, 100).image
    found = whole.processor(
        text=["<IMG_CONTEXT>"], images=[image], return_tensors="pt", images_kwargs=chosen
    )
    assert len(found["pixel_values"]) == tiles


@pytest.mark.parametrize(
    ("chosen", "words"),
    [
        ({"max_patches": 65}, "max_patches is a number from 1 to 64"),
        ({"max_patches": 0}, "max_patches is a number"),
        ({"max_patches": True}, "max_patches is a number"),
        ({"max_patches": "9"}, "max_patches is a number"),
        ({"min_patches": 7}, "min_patches 7 is over max_patches 6"),
        ({"crop_to_patches": 1}, "crop_to_patches is true or false"),
    ],
)
def test_a_choice_that_makes_no_sense_is_refused(
    chosen: dict[str, Any], words: str, both: Halves
) -> None:
    with pytest.raises(BadRequest, match=words):
        prepare(both, **chosen)


# ---- frames


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, list(range(40))),
        ({"num_frames": 4}, [5, 15, 25, 35]),
        ({"num_frames": 99}, list(range(40))),
        ({"fps": 1.0}, [5, 15, 25, 35]),
        ({"fps": 2.0, "num_frames": 4}, [2, 7, 12, 17, 22, 27, 32, 37]),  # capped by the caller
        ({"fps": 0.01}, [20]),
        ({"fps": 1000.0}, list(range(40))),
    ],
)
def test_frames_are_chosen_by_the_models_own_rule(
    options: dict[str, Any], expected: list[int], both: Halves
) -> None:
    """In the middle of each stretch of the video."""
    info = VideoInfo(num_frames=40, fps=10.0, duration_s=4.0, width=64, height=48)
    assert both.towers.sample_frames(info, MediaOptions(**options)) == expected


def test_a_checkpoint_that_samples_by_itself_does_so(path: Path, both: Halves) -> None:
    adapter = both.checkpoint.adapter()
    processors = adapter.load_processors([Modality.VIDEO])
    video = deepcopy(processors[Modality.VIDEO].video_processor)
    video.do_sample_frames, video.num_frames = True, 8
    processors[Modality.VIDEO].video_processor = video
    info = VideoInfo(num_frames=40, fps=10.0, duration_s=4.0, width=64, height=48)
    assert len(adapter.sample_frames(processors, info, MediaOptions())) == 8
