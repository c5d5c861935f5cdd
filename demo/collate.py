"""Conversations to tensors: what the processor and get_rope_index would make of each, side by side.

A row holds one conversation. Its media and its opening come first; then its turns, each of which
sees what came first and not the other turns, and counts its positions on from there.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from demo import labels, patches, sounds
from demo.conversations import Conversation, Medium
from demo.drawing import render
from demo.facts import Motion, Scene
from demo.questions import Turn
from demo.sizes import FRAME_TOKENS, IMAGE_TOKENS, TOKEN

LENGTH = 192
NO_LABEL = -100
FRAMES_PER_S = 50
ROW_SAMPLES = sounds.RATE // FRAMES_PER_S * 4  # what becomes one row
HEARD_FRAMES = int(sounds.LONGEST_S * FRAMES_PER_S)
PER_SECOND = 25  # positions in time
PACES = (0.12, 0.25, 0.35, 0.5, 0.5, 0.75, 1.0, 1.0, 1.5, 2.0)  # seconds from one grid to the next


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """Spectrograms [sounds, mel bins, frames], and how many frames of each are of the sound.

    `labels` [rows of all sounds, HEARD].
    """

    features: torch.Tensor
    lengths: torch.Tensor
    labels: torch.Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """`branch` [rows, length]: 0 for what comes first, then the turn's number, -1 for padding.

    `shown` [rows, length]: one more than the cell of the thing that a token of a picture shows;
    `about`: the same of the thing that a token of an answer is about. 0 where there is none.
    """

    ids: torch.Tensor
    labels: torch.Tensor
    positions: torch.Tensor
    branch: torch.Tensor
    shown: torch.Tensor
    about: torch.Tensor
    pictures: patches.Patches
    picture_labels: torch.Tensor
    frames: patches.Patches
    frame_labels: torch.Tensor
    heard: Heard


@dataclass(frozen=True, slots=True, kw_only=True)
class Sound:
    """A spectrogram [mel bins, frames], of which `num_frames` are of the sound; see Heard."""

    features: np.ndarray[Any, Any]
    num_frames: int
    labels: torch.Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One picture, clip or sound, ready for its tower: its pixels or samples, and its grid."""

    medium: Medium
    data: Any
    grid: tuple[int, int, int]  # times, rows, columns; a sound's rows are its times


class Row:
    """One conversation's tokens."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.labels: list[int] = []
        self.branch: list[int] = []
        self.shown: list[int] = []
        self.about: list[int] = []
        self.positions: list[np.ndarray[Any, Any]] = []
        self.next = 0  # position of the next token of text

    def add(
        self,
        ids: Sequence[int],
        branch: int,
        *,
        learnt: bool = False,
        about: Sequence[int] | None = None,
    ) -> None:
        self.ids += ids
        self.shown += [0] * len(ids)
        self.about += [0] * len(ids) if about is None else about
        self.labels += ids if learnt else [NO_LABEL] * len(ids)
        self.branch += [branch] * len(ids)
        counted = np.arange(self.next, self.next + len(ids))
        self.positions.append(np.tile(counted, (3, 1)))
        self.next += len(ids)

    def add_item(
        self, token: int, places: np.ndarray[Any, Any], shown: Sequence[int] | None = None
    ) -> None:
        num = places.shape[1]
        self.ids += [token] * num
        self.shown += [0] * num if shown is None else shown
        self.about += [0] * num
        self.labels += [NO_LABEL] * num
        self.branch += [0] * num
        self.positions.append(places + self.next)
        self.next = int(self.positions[-1].max()) + 1


class Collator:
    """Of one processor. Media are drawn here, from the lots given."""

    def __init__(self, processor: Any) -> None:
        self.extractor = processor.feature_extractor
        self.tokenizer = processor.tokenizer
        self._known: dict[str, list[int]] = {}

    def __call__(self, conversations: Sequence[Conversation], rng: random.Random) -> Batch:
        drawn = [[self.item(m, rng) for m in c.media] for c in conversations]
        rows = [
            self.row(conversation, items, rng)
            for conversation, items in zip(conversations, drawn, strict=True)
        ]
        return self.batch(rows, [item for each in drawn for item in each])

    def batch(self, rows: Sequence[Row], items: Sequence[Item]) -> Batch:
        """`items`: those of all rows, in their order."""
        scenes = [i for i in items if isinstance(i.medium, Scene)]
        clips = [i for i in items if isinstance(i.medium, Motion)]
        heard = [i for i in items if isinstance(i.medium, sounds.Heard)]
        return Batch(
            **_padded(rows, self.tokenizer.pad_token_id),
            pictures=patches.picture_patches([i.data for i in scenes], IMAGE_TOKENS[1]),
            picture_labels=labels.picture_labels(
                [i.medium for i in scenes if isinstance(i.medium, Scene)],
                [i.grid[1:] for i in scenes],
                IMAGE_TOKENS[1],
            ),
            frames=patches.clip_patches([i.data for i in clips], FRAME_TOKENS[1]),
            frame_labels=labels.clip_labels(
                [i.medium for i in clips if isinstance(i.medium, Motion)],
                [i.grid[1:] for i in clips],
                FRAME_TOKENS[1],
            ),
            heard=heard_together([i.data for i in heard]),
        )

    def item(self, medium: Medium, rng: random.Random) -> Item:
        if isinstance(medium, sounds.Heard):
            sound = self.sound(medium, rng)
            return Item(medium=medium, data=sound, grid=(len(sound.labels), 1, 1))
        if isinstance(medium, Motion):
            pixels = render.frames(medium.frames, rng)
            times = len(pixels) // 2
        else:
            pixels, times = render.picture(medium, rng), 1
        height, width = pixels.shape[-3:-1]
        grid = times, height // TOKEN, width // TOKEN
        return Item(medium=medium, data=pixels, grid=grid)

    def sound(self, heard: sounds.Heard, rng: random.Random) -> Sound:
        wave, marks = sounds.marked(heard, rng)
        features, num_frames = self.spectrogram(wave)
        told = labels.sound_labels(heard, marks, num_rows(num_frames), ROW_SAMPLES)
        return Sound(features=features, num_frames=num_frames, labels=told)

    def spectrogram(self, wave: sounds.Wave) -> tuple[np.ndarray[Any, Any], int]:
        """[mel bins, frames], and how many frames are of the sound."""
        found = self.extractor(
            [wave], sampling_rate=sounds.RATE, padding="max_length", return_attention_mask=True
        )
        return found["input_features"][0], int(found["attention_mask"][0].sum())

    def row(self, conversation: Conversation, items: Sequence[Item], rng: random.Random) -> Row:
        """As many turns as there is room for."""
        row = Row()
        if conversation.system:
            row.add(self.ids(f"<|im_start|>system\n{conversation.system}<|im_end|>\n"), 0)
        row.add(self.ids("<|im_start|>user\n"), 0)
        opening = conversation.opening
        if opening and conversation.text_first:
            row.add(self.ids(opening.question), 0)
        for item in items:
            self._show(row, item, rng)
        start = ""
        if opening:
            asked = "" if conversation.text_first else opening.question
            row.add(self.ids(asked + "<|im_end|>\n<|im_start|>assistant\n"), 0)
            row.add(self.ids(opening.answer + "<|im_end|>"), 0, learnt=True)
            row.add(self.ids("\n"), 0)
            start = "<|im_start|>user\n"
        self._ask(row, start, conversation.turns)
        return row

    def _ask(self, row: Row, start: str, turns: Sequence[Turn]) -> None:
        first = row.next
        for branch, turn in enumerate(turns, 1):
            asked = self.ids(f"{start}{turn.question}<|im_end|>\n<|im_start|>assistant\n")
            answer = self.ids(turn.answer + "<|im_end|>")
            if len(row.ids) + len(asked) + len(answer) > LENGTH:
                continue
            row.next = first
            row.add(asked, branch)
            row.add(answer, branch, learnt=True, about=self._about(turn, len(answer)))

    def _about(self, turn: Turn, num: int) -> list[int]:
        """One for each of the answer's tokens. Parts end where words do, so tokens do too."""
        found = [place for part, place in turn.about for _ in self.ids(part)]
        return [*found, *[0] * num][:num]

    def _show(self, row: Row, item: Item, rng: random.Random) -> None:
        kind, ends = _TOKENS[type(item.medium)]
        row.add(self.ids(f"<|{ends}_bos|>"), 0)
        medium, (_, rows, columns) = item.medium, item.grid
        shown = labels.cells(medium, rows, columns) if isinstance(medium, Scene) else None
        row.add_item(self.ids(kind)[0], places(item, rng.choice(PACES)), shown)
        row.add(self.ids(f"<|{ends}_eos|>"), 0)

    def ids(self, text: str) -> list[int]:
        """Tokens of one of the texts that come again and again."""
        if text not in self._known:
            self._known[text] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return self._known[text]


_TOKENS = {
    Scene: ("<|IMAGE|>", "vision"),
    Motion: ("<|VIDEO|>", "vision"),
    sounds.Heard: ("<|AUDIO|>", "audio"),
}


def num_rows(num_frames: int) -> int:
    """What the sound tower makes of a spectrogram."""
    return ((num_frames - 1) // 2 + 1) // 2


def places(item: Item, pace: float) -> np.ndarray[Any, Any]:
    """[3, tokens] of time, row and column from the item's start. `pace`: seconds between grids."""
    times, rows, columns = item.grid
    if isinstance(item.medium, sounds.Heard):
        return np.tile(np.arange(times), (3, 1))
    time = (np.arange(times) * pace * PER_SECOND).astype(np.int64)
    return np.stack(
        [
            np.repeat(time, rows * columns),
            np.tile(np.repeat(np.arange(rows), columns), times),
            np.tile(np.arange(columns), times * rows),
        ]
    )


def _padded(rows: Sequence[Row], pad: int) -> dict[str, torch.Tensor]:
    num = len(rows)
    found = {"ids": pad, "labels": NO_LABEL, "branch": -1, "shown": 0, "about": 0}
    padded = {name: torch.full((num, LENGTH), value) for name, value in found.items()}
    positions = torch.zeros(3, num, LENGTH, dtype=torch.long)
    for i, row in enumerate(rows):
        length = len(row.ids)
        for name, values in padded.items():
            values[i, :length] = torch.tensor(getattr(row, name))
        positions[:, i, :length] = torch.from_numpy(np.concatenate(row.positions, 1))
    return {**padded, "positions": positions}


def heard_together(found: Sequence[Sound]) -> Heard:
    if not found:
        return Heard(
            features=torch.zeros(0, 1, HEARD_FRAMES),
            lengths=torch.zeros(0, dtype=torch.long),
            labels=torch.zeros(0, len(labels.HEARD), dtype=torch.long),
        )
    cut = np.stack([sound.features[:, :HEARD_FRAMES] for sound in found])
    return Heard(
        features=torch.from_numpy(cut).float(),
        lengths=torch.tensor([sound.num_frames for sound in found]),
        labels=torch.cat([sound.labels for sound in found]),
    )
