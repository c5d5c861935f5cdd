"""The families as a page of the documentation: `python -m epd.models.table > docs/models.md`.

Everything in it comes from the registry, so a row cannot say what the code does not.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

from epd.models.families import built_in
from epd.models.family import EmbedsField, FamilySpec
from epd.types import Modality

HEAD = """\
# Models

Made by `python -m epd.models.table` from the registry; a test compares the two.

A family is known by the first entry of `architectures` in a checkpoint's config.json, whatever its
size. Families from outside come in by an entry point, see [add-a-family.md](add-a-family.md);
among them may be models for time series, which none of these is.
"""

TAKES = """\

## What each family takes

Sound in video: with `use_audio_in_video` a video's sound track becomes part of it. Positions: of
the rotary embedding, one count for all tokens or three axes (time, height, width).
"""

OPTIONS = """\

## Settings of the processor that a request may choose

In `mm_processor_kwargs`. Any other is refused.
"""

EMBEDS = """\

## Ready-made embeddings

Off unless `media.enable_embeds`. Rows are as wide as the model's hidden size, and where a model
adds rows in deeper layers too, once more as wide for each such level. A field that is missing is a
400, unless it is marked optional.
"""

REFUSED = """\

## What is refused when a checkpoint is read or loaded

Quantised weights other than FP8 in blocks; attention in chunks or in both directions, soft caps,
attention sinks, recurrent layers; rotary embeddings whose frequencies depend on a sequence's
length. One token runs through every language model that is loaded, with an attention function that
only listens: where a layer asks for anything but causal attention, to all tokens or within a
sliding window, the worker says so and does not start.
"""

_MEDIA = {
    Modality.IMAGE: "image",
    Modality.VIDEO: "video",
    Modality.AUDIO: "audio",
    Modality.TIME_SERIES: "time series",
}


def page(families: Sequence[FamilySpec]) -> str:
    """The whole page."""
    return (
        HEAD
        + TAKES
        + _table(
            ("family", "architecture", *_MEDIA.values(), "sound in video", "positions"),
            _takes(families),
        )
        + OPTIONS
        + _table(("family", "modality", "settings"), _options(families))
        + EMBEDS
        + _table(("family", "modality", "fields"), _embeds(families))
        + REFUSED
    )


def _takes(families: Sequence[FamilySpec]) -> Iterable[Sequence[str]]:
    for family in families:
        yield (
            family.name,
            ", ".join(f"`{name}`" for name in family.architectures),
            *(_yes(modality in family.modalities) for modality in _MEDIA),
            _yes(family.sound_in_video),
            "three axes" if family.rotary == "mrope" else "one count",
        )


def _options(families: Sequence[FamilySpec]) -> Iterable[Sequence[str]]:
    for family in families:
        for modality, names in family.processor_options.items():
            yield family.name, _MEDIA[modality], ", ".join(f"`{name}`" for name in names)


def _embeds(families: Sequence[FamilySpec]) -> Iterable[Sequence[str]]:
    for family in families:
        for modality, fields in family.embeds.items():
            yield family.name, _MEDIA[modality], "; ".join(map(_field, fields))


def _field(field: EmbedsField) -> str:
    optional = "" if field.required else ", optional"
    return f"`{field.name}` {field.shape}, {field.dtype}{optional}"


def _yes(value: bool) -> str:
    return "yes" if value else ""


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    sys.stdout.write(page(built_in()))
