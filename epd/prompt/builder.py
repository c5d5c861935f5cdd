"""From a chat to a Draft: render, tokenise, and bind every placeholder to its item."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from tokenizers import Tokenizer

from epd.errors import BadRequest, InternalError
from epd.models.spec import Checkpoint
from epd.prompt.aliases import Aliases
from epd.prompt.chat import ItemPart, Message, items_of, num_characters
from epd.prompt.detokenizer import Detokenizer
from epd.prompt.draft import Draft, MediaPart
from epd.prompt.template import Template
from epd.prompt.token_texts import TokenTexts
from epd.prompt.tokenizer import read_template, read_tokenizer
from epd.types import Modality

# Normalisation can compose this many characters to one at most, by a wide margin.
_COMPOSED = 4


class PromptBuilder:
    """One checkpoint's way from chat to ids and back. Thread-safe; slow calls, so off the loop."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        tokenizer = read_tokenizer(checkpoint.path)
        self._tokenizer: Tokenizer = tokenizer.backend_tokenizer
        self._placeholders = dict(checkpoint.spec.placeholders)
        self._modality = {token: modality for modality, token in self._placeholders.items()}
        self._aliases = Aliases(self._tokenizer, also=self._placeholders.values())
        self.template = Template(
            tokenizer,
            read_template(checkpoint.path, tokenizer, checkpoint.spec.default_template),
            self._aliases,
            self._placeholders,
        )
        self.token_texts = TokenTexts(self._tokenizer)
        self._bos: str | None = tokenizer.bos_token
        self._before, self._after = _added_around(self._tokenizer)
        self._max_context = checkpoint.max_context
        longest_token = max(map(len, self._tokenizer.get_vocab()))
        self._max_characters = checkpoint.max_context * longest_token * _COMPOSED

    def build(self, messages: Sequence[Message]) -> Draft:
        """BadRequest names what the client can fix."""
        items = list(items_of(messages))
        self._check(messages, items)
        text = self.template.render(messages)
        sequence, texts_before = self._find_placeholders(text)
        bound = _bind(sequence, items)
        ids = self._cut(self._encode(text), len(sequence))
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

    def detokenizer(self, stops: Sequence[str] = (), *, min_tokens: int = 0) -> Detokenizer:
        """For one choice of an answer."""
        return Detokenizer(self._tokenizer, stops=stops, min_tokens=min_tokens)

    def _check(self, messages: Sequence[Message], items: list[tuple[str, ItemPart]]) -> None:
        if not messages:
            raise BadRequest("messages must not be empty", param="messages")
        for where, item in items:
            if item.modality not in self._placeholders:
                raise BadRequest(f"{where}: this model takes no {item.modality}", param=where)
        if num_characters(messages) > self._max_characters:  # too long whatever its tokens are
            raise self._too_long("more")

    def _check_length(self, num_tokens: int) -> None:
        """An item takes one token at least, an answer too."""
        if num_tokens >= self._max_context:
            raise self._too_long(f"at least {num_tokens}")

    def _too_long(self, has: str) -> BadRequest:
        return BadRequest(
            f"this model's context is {self._max_context} tokens, prompt and answer together; "
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
    sequence: list[Modality], items: list[tuple[str, ItemPart]]
) -> list[tuple[str, ItemPart]]:
    """The k-th placeholder of a modality takes its k-th item; the result is in prompt order."""
    shown = Counter(sequence)
    given = Counter(item.modality for _, item in items)
    for modality in sorted(shown | given):
        if shown[modality] != given[modality]:
            raise BadRequest(
                f"the chat has {given[modality]} {modality} items, but the model's chat template "
                f"shows {shown[modality]}",
                param="messages",
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
