"""Chats with items of every kind: each finds its placeholder, and ids equal Hugging Face's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from epd.models.spec import Checkpoint
from epd.models.torchvision_shim import prepare_torchvision
from epd.prompt import Draft, ItemPart, Message, PromptBuilder, Source, TextPart
from epd.types import Modality
from tests.prompt.folders import (
    EVERY_TEMPLATE,
    PLACEHOLDERS,
    STRING_TEMPLATE,
    write_every_modality,
)

ITEMS = {
    kind: ItemPart(modality=kind, source=Source.file(kind.value.encode())) for kind in Modality
}
# What stands right before an item: tokenisers merge it with what follows, if they can.
ENDS = ("", " ", "a", "7", ":", "Frame1: ", "\n", "  ", ".", "\u00e9", "e\u0301", "<", "|>")
WORDS = st.tuples(st.text(st.sampled_from("a 1:\n.<|>"), max_size=6), st.sampled_from(ENDS))
PARTS = st.lists(
    st.one_of(
        WORDS.map(lambda words: TextPart(text="".join(words))),
        st.sampled_from(Modality).map(lambda kind: ITEMS[kind]),
    ),
    min_size=1,
    max_size=8,
).map(tuple)


@pytest.fixture(scope="module")
def every(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return write_every_modality(tmp_path_factory.mktemp("every"))


@pytest.fixture(scope="module")
def builder(every: Checkpoint) -> PromptBuilder:
    return PromptBuilder(every)


@pytest.fixture(scope="module")
def hugging_face(every: Checkpoint) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast.from_pretrained(every.path)


def as_hugging_face(messages: list[Message]) -> list[dict[str, Any]]:
    return [
        {
            "role": message.role,
            "content": [
                {"type": "text", "text": part.text}
                if isinstance(part, TextPart)
                else {"type": part.modality.value, part.modality.value: "https://a.b/c"}
                for part in message.content
                if not isinstance(part, str)
            ],
        }
        for message in messages
    ]


def joined(draft: Draft, tokenizer: PreTrainedTokenizerFast) -> list[int]:
    ids = list(draft.text[0])
    for part, text in zip(draft.parts, draft.text[1:], strict=True):
        ids += [tokenizer.convert_tokens_to_ids(PLACEHOLDERS[part.modality]), *text]
    return ids


@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(turns=st.lists(PARTS, min_size=1, max_size=3))
@example(turns=[tuple(p for end in ENDS for p in (TextPart(text=f"x{end}"), *ITEMS.values()))])
def test_chats_of_all_kinds_equal_hugging_face(
    builder: PromptBuilder,
    hugging_face: PreTrainedTokenizerFast,
    turns: list[tuple[TextPart | ItemPart, ...]],
) -> None:
    """Whatever stands before an item, and whichever stands beside it."""
    roles = ("user", "assistant")
    chat = [Message(role=roles[k % 2], content=parts) for k, parts in enumerate(turns)]
    draft = builder.build(chat)
    expected = hugging_face.apply_chat_template(
        as_hugging_face(chat), add_generation_prompt=True, return_dict=False
    )
    assert joined(draft, hugging_face) == expected
    items = [part for parts in turns for part in parts if isinstance(part, ItemPart)]
    assert [part.source for part in draft.parts] == [item.source for item in items]


def test_kinds_that_a_template_moves_apart_are_bound_each_by_its_order(tmp_path: Path) -> None:
    """Sounds first, pictures behind the text: the k-th of a kind is the k-th of the chat."""
    moving = "".join(
        "{% for c in m['content'] if c['type'] == '" + kind + "' %}" + token + "{% endfor %}"
        for kind, token in (("audio", "<|AUDIO|>"), ("text", "x"), ("image", "<|image_pad|>"))
    )
    template = "{% for m in messages %}" + moving + "{{ m['content'][0]['text'] }}{% endfor %}"
    every = write_every_modality(tmp_path)
    (tmp_path / "chat_template.jinja").write_text(template)
    items = [
        ItemPart(modality=kind, source=Source.file(bytes([k])))
        for k, kind in enumerate([Modality.IMAGE, Modality.AUDIO] * 2)
    ]
    content: tuple[TextPart | ItemPart, ...] = (TextPart(text="so"), *items)
    draft = PromptBuilder(every).build([Message(role="user", content=content)])
    assert [part.source.data for part in draft.parts] == [b"\1", b"\3", b"\0", b"\2"]
    assert [part.where[-2] for part in draft.parts] == ["2", "4", "1", "3"]


def test_strings_show_each_kind_as_its_placeholder(tmp_path: Path) -> None:
    every = write_every_modality(tmp_path)
    (tmp_path / "chat_template.jinja").write_text(STRING_TEMPLATE)
    content: tuple[TextPart | ItemPart, ...] = (*ITEMS.values(), TextPart(text="so?"))
    draft = PromptBuilder(every).build([Message(role="user", content=content)])
    assert [part.modality for part in draft.parts] == list(Modality)


# ---- a template that comes with the family


def default_template() -> str:
    """Of the one processor that brings its template along."""
    prepare_torchvision()
    from transformers import Qwen2AudioProcessor

    source: str = Qwen2AudioProcessor.default_chat_template.fget(None)
    return source


def test_qwen2_audios_own_template_sees_every_clip(tmp_path: Path) -> None:
    """It looks for keys, not for types; on HTTP parts Hugging Face lets some vanish silently."""
    every = write_every_modality(tmp_path, default_template=default_template())
    (tmp_path / "chat_template.jinja").unlink()
    builder = PromptBuilder(every)
    clip = ITEMS[Modality.AUDIO]
    content = (clip, TextPart(text="and"), clip, TextPart(text="differ?"))
    draft = builder.build([Message(role="user", content=content)])
    assert [part.modality for part in draft.parts] == [Modality.AUDIO] * 2
    hugging_face = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    chat = [
        {
            "role": "user",
            "content": [
                {"type": "audio", "audio_url": "x"},
                {"type": "text", "text": "and"},
                {"type": "audio", "audio_url": "x"},
                {"type": "text", "text": "differ?"},
            ],
        }
    ]
    expected = hugging_face.apply_chat_template(
        chat, chat_template=default_template(), add_generation_prompt=True, return_dict=False
    )
    assert joined(draft, hugging_face) == expected


@pytest.mark.parametrize("named", ["chat_template.jinja", "tokenizer_config.json"])
def test_a_familys_template_goes_before_the_tokenizers_and_behind_the_processors(
    tmp_path: Path, named: str
) -> None:
    """As Hugging Face's processor looks for it."""
    every = write_every_modality(tmp_path)
    jinja = tmp_path / "chat_template.jinja"
    if named != jinja.name:
        jinja.unlink()
        fast = PreTrainedTokenizerFast.from_pretrained(tmp_path)
        fast.chat_template = EVERY_TEMPLATE
        fast.save_pretrained(tmp_path, save_jinja_files=False)
        assert not jinja.exists()
    family = "{% for m in messages %}FAMILY {{ m['content'] }}{% endfor %}"
    spec = replace(every.spec, default_template=family)
    builder = PromptBuilder(replace(every, spec=spec))
    (ids,) = builder.build([Message(role="user", content="hi")]).text
    assert builder.detokenizer().add(ids).startswith("FAMILY") is (named != jinja.name)
