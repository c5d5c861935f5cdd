"""One row of the registry: what every stage may know about a family. Needs no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from epd.types import Modality

if TYPE_CHECKING:
    from epd.models.adapter import Adapter


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedsField:
    """One tensor of a ready-made embedding. `shape` is in words: "[rows, width]".

    The first field of a modality is the one that has the rows.
    """

    name: str
    shape: str
    dtype: Literal["float", "int"] = "float"
    required: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class FamilySpec:
    """One model family.

    `architectures` are Hugging Face's class names. `placeholders` is the text of the one token
    per item that the rendered chat template contains and an item's layout replaces. `towers` names
    the modules that encode a modality: a weight is of a tower when its name has one of them between
    dots. `sound_in_video`: a video's sound may become part of the item. `processor_options` are the
    settings of Hugging Face's processor that a client may choose, per modality. `embeds` says what
    a ready-made embedding of a modality consists of; a modality that is missing takes none.
    `inside` names the part of a larger checkpoint that this model may be: `thinker` where
    config.json has a `thinker_config` and weights are called `thinker.*`; the first architecture is
    then the part's own. `eos_token_ids` are those that transformers' code has where no file names
    any.
    `default_template` is the chat template that the family's processor brings along, for folders
    whose processor has none: it goes before the tokenizer's own.
    `model_class` returns the class that is loaded where transformers has none by that name.
    """

    name: str
    architectures: tuple[str, ...]
    adapter: type[Adapter]
    modalities: tuple[Modality, ...]
    placeholders: Mapping[Modality, str]
    rotary: Literal["mrope", "1d"]
    towers: Mapping[Modality, tuple[str, ...]]
    sound_in_video: bool = False
    processor_options: Mapping[Modality, tuple[str, ...]] = field(default_factory=dict)
    embeds: Mapping[Modality, tuple[EmbedsField, ...]] = field(default_factory=dict)
    inside: str = ""
    eos_token_ids: tuple[int, ...] = ()
    default_template: str | None = None
    model_class: Callable[[], type] | None = None
