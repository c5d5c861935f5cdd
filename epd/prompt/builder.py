"""From a chat to a Draft: render, tokenise, and bind every placeholder to its item."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer

from epd.errors import BadRequest, InternalError
from epd.models.spec import Checkpoint
from epd.prompt.aliases import Aliases
from epd.prompt.brought import BroughtTemplates
from epd.prompt.calls import opens_reasoning
from epd.prompt.chat import ItemPart, Message, Rendering, items_of, num_characters
from epd.prompt.detokenizer import Detokenizer
from epd.prompt.draft import Draft, MediaPart
from epd.prompt.template import Template
from epd.prompt.token_texts import TokenTexts
from epd.prompt.tokenizer import read_file, read_template, read_tokenizer
from epd.types import Modality

# Normalisation can compose this many characters to one at most, by a wide margin.
_COMPOSED = 4

_TAIL = 16  # tokens; the mark of reasoning and white space, spelled by the character


class PromptBuilder:
    """One checkpoint's way from chat to ids and back. Thread-safe; slow calls, so off the loop.

    `template` is a file in place of the checkpoint's own. What requests bring is rendered for
    `template_timeout_s` seconds of a processor at most.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        template: Path | None = None,
        *,
        template_timeout_s: float = 2.0,
    ) -> None:
        tokenizer = read_tokenizer(checkpoint.path)
        self._tokenizer: Tokenizer = tokenizer.backend_tokenizer
        self._placeholders = dict(checkpoint.spec.placeholders)
        self._modality = {token: modality for modality, token in self._placeholders.items()}
        self._aliases = Aliases(self._tokenizer, also=self._placeholders.values())
        source = (
            read_template(checkpoint.path, tokenizer, checkpoint.spec.default_template)
            if template is None
            else read_file(template)
        )
        self.template = Template(tokenizer, source, self._aliases, self._placeholders)
        self._brought = BroughtTemplates(
            tokenizer, self._aliases, self._placeholders, timeout_s=template_timeout_s
        )
        added = self._tokenizer.get_added_tokens_decoder().values()
        self.added_tokens = frozenset(token.content for token in added)
        self.token_texts = TokenTexts(self._tokenizer)
        self._bos: str | None = tokenizer.bos_token
        self._before, self._after = _added_around(self._tokenizer)
        self.max_context = checkpoint.max_context
        self._vocab_size = checkpoint.vocab_size
        longest_token = max(map(len, self._tokenizer.get_vocab()))
        self._max_characters = checkpoint.max_context * longest_token * _COMPOSED

    def build(self, messages: Sequence[Message], rendering: Rendering | None = None) -> Draft:
        """BadRequest names what the client can fix."""
        rendering = rendering or Rendering()
        items = list(items_of(messages))
        self._check(messages, items, rendering)
        text = self.template_of(rendering).render(messages, rendering)
        sequence, texts_before = self._find_placeholders(text)
        bound = _bind(sequence, items, "messages", "the model's chat template shows")
        return self._draft(self._encode(text), bound, texts_before)

    def template_of(self, rendering: Rendering) -> Template:
        """The model's, or the one that a request brings. BadRequest if that is none."""
        return self.template if rendering.template is None else self._brought.of(rendering.template)

    def close(self) -> None:
        """Ends the process that renders what requests bring."""
        self._brought.close()

    def build_raw(
        self,
        prompt: str | Sequence[int],
        items: Sequence[tuple[str, ItemPart]] = (),
        *,
        add_special_tokens: bool = True,
    ) -> Draft:
        """Of a text in which special tokens are what they say, or of ids as they are.

        The tokenizer's own tokens around a text are added as it adds them to any text.
        """
        if isinstance(prompt, str):
            ids, sequence, texts_before = self._read_text(prompt, add_special_tokens)
        else:
            ids = self._checked(prompt, "prompt")
            sequence, texts_before = self._read_ids(ids)
        if not ids:
            raise BadRequest("the prompt has no tokens", param="prompt")
        bound = _bind(sequence, list(items), "prompt", "the prompt has placeholders for")
        return self._draft(ids, bound, texts_before)

    def tokens(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """What the tokenizer makes of any text."""
        self._check_characters(len(text))
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=add_special_tokens).ids
        return ids

    def tokens_of(self, draft: Draft) -> list[int]:
        """The draft's ids, an item being its placeholder."""
        ids = list(draft.text[0])
        for part, text in zip(draft.parts, draft.text[1:], strict=True):
            ids += [self._aliases.id_of(self._placeholders[part.modality]), *text]
        return ids

    def text_of(self, ids: Sequence[int], param: str) -> str:
        """What they say, special tokens by their names; `param` is what a client calls them."""
        text: str = self._tokenizer.decode(self._checked(ids, param), skip_special_tokens=False)
        return text

    def names_of(self, ids: Sequence[int]) -> list[str]:
        """What the vocabulary calls them."""
        return [self._tokenizer.id_to_token(token_id) or "" for token_id in ids]

    def _read_text(
        self, prompt: str, add_special_tokens: bool
    ) -> tuple[list[int], list[Modality], list[str]]:
        self._check_characters(len(prompt))
        text = self._aliases.hide(prompt)
        ids = self._aliases.encode(text)
        if add_special_tokens:
            ids = [*self._before, *ids, *self._after]
        return ids, *self._find_placeholders(text)

    def _read_ids(self, ids: Sequence[int]) -> tuple[list[Modality], list[str]]:
        """As _find_placeholders, of ids."""
        modality_of = {self._aliases.id_of(token): m for token, m in self._modality.items()}
        sequence: list[Modality] = []
        before: list[str] = []
        last = 0
        for place, token_id in enumerate(ids):
            if (modality := modality_of.get(token_id)) is not None:
                sequence.append(modality)
                before.append(self._tokenizer.decode(ids[last:place], skip_special_tokens=False))
            if self._aliases.hides(token_id):
                last = place + 1
        return sequence, before

    def _checked(self, ids: Sequence[int], param: str) -> list[int]:
        unknown = next((one for one in ids if not 0 <= one < self._vocab_size), None)
        if unknown is not None:
            raise BadRequest(
                f"token {unknown} is not in the vocabulary of {self._vocab_size}", param=param
            )
        return list(ids)

    def _draft(
        self, all_ids: list[int], bound: list[tuple[str, ItemPart]], texts_before: list[str]
    ) -> Draft:
        ids = self._cut(all_ids, len(bound))
        self._check_length(sum(map(len, ids)) + len(bound))
        parts = tuple(
            MediaPart(
                modality=item.modality,
                index=index,
                source=item.source,
                text_before=before,
                where=where,
                options=item.options,
            )
            for index, ((where, item), before) in enumerate(zip(bound, texts_before, strict=True))
        )
        return Draft(text=ids, parts=parts)

    def opens_reasoning(self, draft: Draft) -> bool:
        """Whether the answer begins inside of reasoning."""
        tail = list(draft.text[-1][-_TAIL:])
        return opens_reasoning(self._tokenizer.decode(tail, skip_special_tokens=False))

    def detokenizer(
        self,
        stops: Sequence[str] = (),
        *,
        min_tokens: int = 0,
        shows_special: bool = False,
        shows_stop: bool = False,
    ) -> Detokenizer:
        """For one choice of an answer."""
        return Detokenizer(
            self._tokenizer,
            stops=stops,
            min_tokens=min_tokens,
            shows_special=shows_special,
            shows_stop=shows_stop,
        )

    def _check(
        self, messages: Sequence[Message], items: list[tuple[str, ItemPart]], rendering: Rendering
    ) -> None:
        if not messages:
            raise BadRequest("messages must not be empty", param="messages")
        for where, item in items:
            if item.modality not in self._placeholders:
                raise BadRequest(f"{where}: this model takes no {item.modality}", param=where)
        self._check_characters(num_characters(messages) + len(json.dumps(rendering.tools)))

    def _check_characters(self, num: int) -> None:
        if num > self._max_characters:  # too long whatever its tokens are
            raise self._too_long("more")

    def _check_length(self, num_tokens: int) -> None:
        """An item takes one token at least, an answer too."""
        if num_tokens >= self.max_context:
            raise self._too_long(f"at least {num_tokens}")

    def _too_long(self, has: str) -> BadRequest:
        return BadRequest(
            f"this model's context is {self.max_context} tokens, prompt and answer together; "
            f"the prompt has {has}",
            param="messages",
            code="context_length_exceeded",
        )

    def _find_placeholders(self, text: str) -> tuple[list[Modality], list[str]]:
        """The modality of each placeholder, and the text since the special token before it."""
        sequence: list[Modality] = []
        before: list[str] = []
        last = 0
        for token, start, end in self._aliases.find(text):
            if (modality := self._modality.get(token)) is not None:
                sequence.append(modality)
                before.append(text[last:start])
            last = end
        return sequence, before

    def _encode(self, text: str) -> list[int]:
        """As a Hugging Face processor: its tokenizer adds BOS unless the template wrote it."""
        ids = self._aliases.encode(text)
        written = self._bos is not None and text.startswith(self._aliases.hide(self._bos))
        if written or not self._placeholders:  # without items Hugging Face has no processor
            return ids
        return [*self._before, *ids, *self._after]

    def _cut(self, ids: list[int], num_items: int) -> tuple[tuple[int, ...], ...]:
        placeholder_ids = {self._aliases.id_of(token) for token in self._placeholders.values()}
        texts: list[list[int]] = [[]]
        for token_id in ids:
            if token_id in placeholder_ids:
                texts.append([])
            else:
                texts[-1].append(token_id)
        if len(texts) != num_items + 1:
            raise InternalError(f"gateway: {num_items} placeholders became {len(texts) - 1}")
        return tuple(map(tuple, texts))


def _bind(
    sequence: list[Modality], items: list[tuple[str, ItemPart]], param: str, showing: str
) -> list[tuple[str, ItemPart]]:
    """The k-th placeholder of a modality takes its k-th item; the result is in prompt order."""
    shown = Counter(sequence)
    given = Counter(item.modality for _, item in items)
    for modality in sorted(shown | given):
        if shown[modality] != given[modality]:
            raise BadRequest(
                f"the request has {given[modality]} {modality} items, but {showing} "
                f"{shown[modality]}",
                param=param,
            )
    queues = {
        modality: iter([entry for entry in items if entry[1].modality is modality])
        for modality in shown
    }
    return [next(queues[modality]) for modality in sequence]


def _added_around(tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """Ids that the tokenizer puts before and after any text when asked for special tokens."""
    bare: list[int] = tokenizer.encode("a", add_special_tokens=False).ids
    full: list[int] = tokenizer.encode("a", add_special_tokens=True).ids
    for start in range(len(full) - len(bare) + 1):
        if full[start : start + len(bare)] == bare:
            return full[:start], full[start + len(bare) :]
    return [], []
