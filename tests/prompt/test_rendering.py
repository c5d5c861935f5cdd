"""How a request has its chat rendered: turns that go on, and the template's own arguments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from epd.errors import BadRequest, ConfigError
from epd.prompt import Message, PromptBuilder, Rendering, TextPart
from epd.prompt.variables import variables_of
from tests.prompt.folders import PARTS_TEMPLATE, STRING_TEMPLATE, write_folder

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content | trim }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}"
    "{% if greeting %}{{ greeting }}{% endif %}{% endif %}"
)
USER = Message(role="user", content="hi")
CHAT = (USER, Message(role="assistant", content="the quick <|im_end|> brown"))


@pytest.fixture(scope="module")
def builder(tmp_path_factory: pytest.TempPathFactory) -> PromptBuilder:
    return PromptBuilder(write_folder(tmp_path_factory.mktemp("thinks"), template=TEMPLATE))


def text_of(builder: PromptBuilder, *chat: Message, **how: Any) -> str:
    return builder._aliases.show(builder.template.render(chat, Rendering(**how)))


def as_hugging_face(folder: Path, *chat: Message, **how: Any) -> str:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    messages = [{"role": message.role, "content": message.content} for message in chat]
    text = tokenizer.apply_chat_template(messages, tokenize=False, **how)
    assert isinstance(text, str)
    return text


@pytest.mark.parametrize(
    ("opens", "goes_on", "arguments"),
    [
        (True, False, {}),
        (False, False, {}),
        (False, True, {}),
        (True, False, {"enable_thinking": False}),
        (True, False, {"enable_thinking": True, "greeting": "Dear <|im_end|>"}),
        (False, True, {"greeting": "nobody"}),
    ],
)
def test_a_chat_is_rendered_as_hugging_face_does(
    tmp_path: Path, opens: bool, goes_on: bool, arguments: dict[str, Any]
) -> None:
    builder = PromptBuilder(write_folder(tmp_path, template=TEMPLATE))
    how = {"add_generation_prompt": opens, "continue_final_message": goes_on}
    assert text_of(builder, *CHAT, **how, arguments=arguments) == as_hugging_face(
        tmp_path, *CHAT, **how, **arguments
    )


@pytest.mark.parametrize(
    ("template", "content"),
    [
        (TEMPLATE, "once upon"),
        (STRING_TEMPLATE, "once upon"),
        (PARTS_TEMPLATE, "once upon"),
        (STRING_TEMPLATE, (TextPart(text="a"), TextPart(text="once upon"))),
        (PARTS_TEMPLATE, (TextPart(text="a"), TextPart(text="once upon"))),
    ],
)
def test_the_last_message_goes_on_where_it_ends(
    tmp_path: Path, template: str, content: Any
) -> None:
    """Without the end of its turn, and without the beginning of another."""
    builder = PromptBuilder(write_folder(tmp_path, template=template))
    last = Message(role="assistant", content=content)
    how = {"add_generation_prompt": False, "continue_final_message": True}
    assert text_of(builder, USER, last, **how).endswith("once upon")
    assert not text_of(builder, USER, last).endswith("once upon")


def test_special_tokens_in_an_argument_stay_text(builder: PromptBuilder) -> None:
    draft = builder.build([USER], Rendering(arguments={"greeting": "<|im_end|>"}))
    plain = builder.build([USER])
    end = builder._tokenizer.token_to_id("<|im_end|>")
    assert draft.text[0].count(end) == plain.text[0].count(end)
    assert len(draft.text[0]) > len(plain.text[0])


def test_a_template_that_hides_the_last_message_cannot_go_on(tmp_path: Path) -> None:
    template = "{% for m in messages if m.role != 'assistant' %}{{ m.content }}{% endfor %}"
    builder = PromptBuilder(write_folder(tmp_path, template=template))
    how = {"add_generation_prompt": False, "continue_final_message": True}
    with pytest.raises(BadRequest, match="does not show the end of the last message") as caught:
        text_of(builder, *CHAT, **how)
    assert caught.value.param == "continue_final_message"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("enable_thoughts", "never reads it"),
        ("m", "never reads it"),
        ("range", "never reads it"),
        ("raise_exception", "never reads it"),
        ("messages", "cannot be set here"),
        ("tools", "cannot be set here"),
        ("chat_template", "cannot be set here"),
        ("add_generation_prompt", "cannot be set here"),
        ("tokenize", "cannot be set here"),
        ("conversation", "cannot be set here"),
        ("self", "cannot be set here"),
        ("eos_token", "cannot be set here"),
    ],
)
def test_an_argument_without_effect_or_with_another_one_is_refused(
    builder: PromptBuilder, name: str, said: str
) -> None:
    with pytest.raises(BadRequest, match=said) as caught:
        text_of(builder, USER, arguments={name: True})
    assert caught.value.param == f"chat_template_kwargs.{name}"


def test_a_generation_prompt_that_cannot_be_left_out_is_not_left_out_silently(
    tmp_path: Path,
) -> None:
    builder = PromptBuilder(write_folder(tmp_path, template=STRING_TEMPLATE))
    with pytest.raises(BadRequest, match="never reads it") as caught:
        text_of(builder, USER, add_generation_prompt=False)
    assert caught.value.param == "add_generation_prompt"


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("{{ messages[0].content }}", {"messages"}),
        ("{% if tools is defined %}{{ range(3) }}{% endif %}", {"tools"}),
        ("{% set a = b %}{{ a }}{% for c in a %}{% break %}{% endfor %}", {"b"}),
        ("{% macro f(x, y=z) %}{{ x }}{% endmacro %}{{ f(1) }}{{ raise_exception('') }}", {"z"}),
        ("{% generation %}{{ said }}{% endgeneration %}", {"said"}),
    ],
)
def test_what_a_template_reads_is_found_in_its_source(source: str, found: set[str]) -> None:
    assert variables_of(source) == found


def test_a_broken_template_is_refused_at_the_start(tmp_path: Path) -> None:
    file = tmp_path / "own.jinja"
    file.write_text("{% for m in messages %}")
    with pytest.raises(ConfigError, match="the chat template is not valid"):
        PromptBuilder(write_folder(tmp_path / "c"), file)


def test_the_operators_template_goes_before_the_checkpoints(tmp_path: Path) -> None:
    file = tmp_path / "own.jinja"
    file.write_text("{% for m in messages %}Q: {{ m.content }}\nA:{% endfor %}")
    builder = PromptBuilder(write_folder(tmp_path / "c"), file)
    assert text_of(builder, USER) == "Q: hi\nA:"
    with pytest.raises(ConfigError, match="cannot read the chat template"):
        PromptBuilder(write_folder(tmp_path / "c"), tmp_path / "none.jinja")
