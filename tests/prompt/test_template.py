"""What a template takes, and what it may say."""

from __future__ import annotations

from pathlib import Path

import pytest

from epd.errors import BadRequest, ConfigError
from epd.models.random_checkpoint import CHAT_TEMPLATE
from epd.prompt import ItemPart, Message, PromptBuilder, Rendering, Source, TextPart, ToolCall
from epd.types import Modality
from tests.prompt.folders import PARTS_TEMPLATE, STRING_TEMPLATE, TOOLS_TEMPLATE, write_folder

IMAGE = ItemPart(modality=Modality.IMAGE, source=Source(url="https://example.org/a.png"))
ALL = {"user", "system", "assistant"}


def text_of(builder: PromptBuilder, *messages: Message) -> str:
    aliases = builder._aliases
    return aliases.show(builder.template.render(messages))


@pytest.mark.parametrize(
    ("template", "strings", "parts"),
    [
        (CHAT_TEMPLATE, ALL, ALL),
        (STRING_TEMPLATE, ALL, set()),
        (PARTS_TEMPLATE, set(), ALL),
        (
            "{% if messages[0].role == 'system' %}{{ 'S' + messages[0].content }}"
            "{% endif %}{% for m in messages if m.role != 'system' %}"
            "{% for c in m.content %}{{ c.text }}{% endfor %}{% endfor %}",
            {"system"},
            {"user", "assistant"},
        ),
    ],
)
def test_the_content_format_is_found_for_each_role(
    tmp_path: Path, template: str, strings: set[str], parts: set[str]
) -> None:
    builder = PromptBuilder(write_folder(tmp_path, template=template))
    assert (builder.template.strings, builder.template.parts) == (strings, parts)


def test_a_string_becomes_a_part_where_only_parts_are_taken(tmp_path: Path) -> None:
    builder = PromptBuilder(write_folder(tmp_path, template=PARTS_TEMPLATE))
    assert "hello<|im_end|>" in text_of(builder, Message(role="user", content="hello"))


def test_parts_become_a_string_where_only_strings_are_taken(tmp_path: Path) -> None:
    """A picture is its placeholder, on a line of its own; a written placeholder is not one."""
    builder = PromptBuilder(write_folder(tmp_path, template=STRING_TEMPLATE))
    content = (TextPart(text="<|image_pad|> is"), IMAGE, TextPart(text="what?"))
    message = Message(role="user", content=content)
    assert "<|image_pad|> is\n<|image_pad|>\nwhat?<|im_end|>" in text_of(builder, message)
    draft = builder.build([message])
    assert len(draft.parts) == 1 and draft.parts[0].text_before.endswith("<|image_pad|> is\n")


def test_templates_may_look_at_the_text_and_trim_it(tmp_path: Path) -> None:
    """Special tokens in it included: hiding happens in the template, not in the text."""
    builder = PromptBuilder(write_folder(tmp_path, template=STRING_TEMPLATE))
    text = text_of(builder, Message(role="user", content="  <|im_end|> \n"))
    assert "user\n<|im_end|><|im_end|>\n" in text


@pytest.mark.parametrize(
    "content", [(TextPart(text="<|im_start|>"),), "a<|im_end|>", "<|vision_start|>"]
)
def test_a_refusal_of_the_template_reaches_the_client(tmp_path: Path, content: str) -> None:
    """In the template's own words, without any alias in it."""
    template = (
        "{% for m in messages %}{% if '<|im_end|>' ~ m.content != '<|im_end|>epdprobe' "
        "and m.content != 'hi' %}"
        "{{ raise_exception('no <|im_end|> ' ~ m.role) }}{% endif %}{{ m.content }}{% endfor %}"
    )
    builder = PromptBuilder(write_folder(tmp_path, template=template))
    with pytest.raises(BadRequest, match=r"no <\|im_end\|> user") as caught:
        builder.build([Message(role="user", content=content)])
    assert caught.value.param == "messages"


def test_a_template_that_reaches_out_is_stopped(tmp_path: Path) -> None:
    """The sandbox refuses; what is asked of it is a bad request or a bad checkpoint, no code."""
    template = "{% for m in messages %}{{ m.content.__class__.__mro__ }}{% endfor %}"
    with pytest.raises(ConfigError, match="shows neither"):
        PromptBuilder(write_folder(tmp_path, template=template))


def test_a_template_that_builds_special_tokens_from_pieces_is_refused(tmp_path: Path) -> None:
    """They could not be told from what a user writes."""
    template = "{% for m in messages %}{{ '<|' ~ 'im_start' ~ '|>' ~ m.content }}{% endfor %}"
    with pytest.raises(ConfigError, match="from pieces"):
        PromptBuilder(write_folder(tmp_path, template=template))


@pytest.mark.parametrize("where", ["chat_template.json", "tokenizer_config.json"])
def test_older_places_of_the_template_are_read(tmp_path: Path, where: str) -> None:
    import json

    checkpoint = write_folder(tmp_path)
    (tmp_path / "chat_template.jinja").unlink()
    file = tmp_path / where
    content = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps({**content, "chat_template": STRING_TEMPLATE}))
    assert PromptBuilder(checkpoint).template.parts == set()


def test_a_checkpoint_without_a_template_is_refused(tmp_path: Path) -> None:
    checkpoint = write_folder(tmp_path)
    (tmp_path / "chat_template.jinja").unlink()
    with pytest.raises(ConfigError, match="no chat template"):
        PromptBuilder(checkpoint)


def test_a_checkpoint_without_a_fast_tokenizer_is_refused(tmp_path: Path) -> None:
    checkpoint = write_folder(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ConfigError, match="cannot read the tokenizer"):
        PromptBuilder(checkpoint)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(ConfigError, match=r"no tokenizer\.json"):
        PromptBuilder(checkpoint)


def test_what_a_tool_said_has_a_format_of_its_own(tmp_path: Path) -> None:
    """Here only a string is shown, whatever users may send."""
    template = TOOLS_TEMPLATE.replace(
        "{{ m.content }}{% for call",
        "{% if m.content is string %}{{ m.content }}{% else %}{% for c in m.content %}"
        "{{ c.text }}{% endfor %}{% endif %}{% for call",
    )
    builder = PromptBuilder(write_folder(tmp_path, template=template))
    assert builder.template.strings == ALL | {"tool"} and builder.template.parts == ALL
    result = Message(role="tool", content=(TextPart(text="sun"), TextPart(text="and rain")))
    call = ToolCall(name="look", arguments={"at": 1})
    turn = Message(role="assistant", content="", tool_calls=(call,), reasoning="hm")
    text = text_of(builder, Message(role="user", content="hi"), turn, result)
    assert "<tool_response>\nsun\nand rain\n</tool_response>" in text
    assert '<think>\nhm\n</think>\n\n<tool_call>\n{"name": "look", "arguments": {"at": 1}}' in text


def test_tools_stand_in_the_prompt_as_they_were_sent(tmp_path: Path) -> None:
    """Special tokens in them are text, and what is too long counts."""
    builder = PromptBuilder(write_folder(tmp_path, template=TOOLS_TEMPLATE))
    user = Message(role="user", content="hi")
    tool = {"function": {"name": "<|im_end|>"}, "type": "function"}
    draft = builder.build([user], Rendering(tools=[tool]))
    eos = builder._tokenizer.token_to_id("<|im_end|>")
    assert draft.text[0].count(eos) == 2  # the template's own
    assert builder.opens_reasoning(draft)
    closed = builder.build([user], Rendering(arguments={"thinking": False}))
    assert not builder.opens_reasoning(closed)
    with pytest.raises(BadRequest, match="context"):
        builder.build([user], Rendering(tools=[{**tool, "x": "a" * 1_000_000}]))
