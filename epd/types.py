"""The words of the project as types: plain data that every room may use and the wire may carry.

Nothing here knows sockets, tensors, clocks or HTTP. Tuples, not lists: a value never changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Stage(StrEnum):
    """One of the three steps of a request. A fused worker serves several."""

    ENCODE = "encode"
    PREFILL = "prefill"
    DECODE = "decode"


class Modality(StrEnum):
    """What an item is."""

    IMAGE = "image"
    VIDEO = "video"
    AUDIO = "audio"
    TIME_SERIES = "time_series"


class ItemForm(StrEnum):
    """How an item came: one file, the frames of a video one by one, or ready-made embeddings."""

    FILE = "file"
    FRAMES = "frames"
    EMBEDS = "embeds"


class FinishReason(StrEnum):
    """Why a request ended well, in OpenAI's words."""

    STOP = "stop"
    LENGTH = "length"


class Activity(StrEnum):
    """What the time of a request goes into; with the stage it says where."""

    QUEUE = "queue"
    FETCH = "fetch"
    DECODE = "decode"
    PREPROCESS = "preprocess"
    ENCODE = "encode"
    TRANSFER = "transfer"
    WAIT = "wait"
    MERGE = "merge"
    PREFILL = "prefill"
    HANDOFF = "handoff"


class Origin(StrEnum):
    """Where an item's rows came from. KV: nobody needed them, for their KV was there."""

    TOWER = "tower"
    CACHE = "cache"
    SHARED = "shared"
    KV = "kv"


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Time that went into one activity: it began `ago_ms` before this was said, and took `ms`.

    What was done in several pieces is one span, as long as all of them together.
    """

    activity: Activity
    ago_ms: float
    ms: float


@dataclass(frozen=True, slots=True, order=True)
class RequestKey:
    """One attempt of a request, minted by its gateway alone; never a client's id."""

    request_id: str
    attempt: int


@dataclass(frozen=True, slots=True, order=True)
class ItemKey:
    """One attempt of one item; `index` counts the request's items in prompt order."""

    request_id: str
    index: int
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemLayout:
    """What one item becomes in the prompt, known before its tower runs.

    `token_ids` replace the placeholder and the `replaces_left` tokens left of it. `row_spans` are
    half-open [start, end) ranges of `token_ids`, ascending, that take one row each per token.
    `width` counts values per row (hidden size, times 1 + deepstack levels), `dtype` is a torch
    dtype's name without its module ("float32"). `content_key` covers the bytes and every fact that
    shaped the result. `positions` are those of the rotary embedding, [3, tokens] little-endian
    float32 (a place in time may be a fraction), counted from where the item starts; b"" where the
    tokens count up as text does. The text after it goes on `advance` further than the item
    started. `atomic`: the tokens of one span see each other in both directions, so one forward
    takes all of them.
    """

    modality: Modality
    token_ids: tuple[int, ...]
    row_spans: tuple[tuple[int, int], ...]
    width: int
    dtype: str
    content_key: bytes
    positions: bytes = b""
    advance: float = 0.0
    replaces_left: int = 0
    atomic: bool = False

    @property
    def num_rows(self) -> int:
        """Rows that the tower owes for this item."""
        return sum(end - start for start, end in self.row_spans)


PAST_THE_END = "past_the_end"
"""The code of the error of a window that begins where the sound has ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaOptions:
    """How one item is read and processed, where somebody said so; within the operator's ceilings.

    None, False, () and "" leave it to the model. `num_frames` and `fps` choose frames of a video.
    `frames_indices`, `total_num_frames`, `source_fps` and `duration_s` are the true facts of a
    video that came as single frames. `use_audio_in_video`: its sound becomes part of the item.
    `truncation`: audio longer than the model listens to is cut instead of refused. Of a sound that
    is heard in windows, this one begins at `begin_s` and is `most_s` long at most. `siblings`
    counts the conversation's items of this modality, this one included. `processor` is a JSON
    object with sorted keys: the settings of Hugging Face's processor that the family lets clients
    choose.
    """

    num_frames: int | None = None
    fps: float | None = None
    frames_indices: tuple[int, ...] = ()
    total_num_frames: int | None = None
    source_fps: float | None = None
    duration_s: float | None = None
    use_audio_in_video: bool = False
    truncation: bool = False
    begin_s: float = 0.0
    most_s: float | None = None
    siblings: int = 1
    processor: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptItem:
    """An item inside a resolved prompt, and the encode worker that has its rows.

    `encoder` "": it is being encoded again, and ItemMoved will say where.
    """

    item: ItemKey
    encoder: str
    layout: ItemLayout


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """A resolved prompt: text[0], items[0], text[1], ..., items[n-1], text[n].

    A resumed request's emitted tokens are the tail of the last text. len(text) == len(items) + 1.
    """

    text: tuple[tuple[int, ...], ...]
    items: tuple[PromptItem, ...] = ()

    @property
    def num_tokens(self) -> int:
        """Length after expansion."""
        return sum(map(len, self.text)) + sum(len(i.layout.token_ids) for i in self.items)

    @property
    def offsets(self) -> tuple[int, ...]:
        """Position of each item's first token in the resolved prompt."""
        found: list[int] = []
        at = 0
        for text, item in zip(self.text, self.items, strict=False):
            at += len(text)
            found.append(at)
            at += len(item.layout.token_ids)
        return tuple(found)

    @property
    def row_spans(self) -> tuple[tuple[int, int], ...]:
        """Half-open ranges of the resolved prompt that take rows, ascending."""
        return tuple(
            (offset + start, offset + end)
            for offset, item in zip(self.offsets, self.items, strict=True)
            for start, end in item.layout.row_spans
        )

    def rows_before(self, token: int) -> int:
        """How many rows the first `token` tokens of the resolved prompt take."""
        return sum(
            max(0, min(end, token - offset) - start)
            for offset, item in zip(self.offsets, self.items, strict=True)
            for start, end in item.layout.row_spans
        )

    def token_ids(self) -> list[int]:
        """The expanded ids, placeholders included."""
        ids = list(self.text[0])
        for item, text in zip(self.items, self.text[1:], strict=True):
            ids += item.layout.token_ids
            ids += text
        return ids


MAX_GRAMMAR_BYTES = 1 << 17


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How tokens are chosen and when generation ends. All resolved, no defaults left.

    `n` choices continue one prompt; they are numbered from `first_choice`. `temperature` 0 is
    greedy. `top_k` 0, `top_p` 1, `min_p` 0, `repetition_penalty` 1 and the other penalties 0 switch
    off. Randomness is f(seed, choice, token index), so a resumed stream continues exactly.
    `stop_token_ids` holds the checkpoint's eos ids too, unless they are to be ignored; none of them
    comes before token index `min_tokens`. `max_tokens` counts from token index 0, per choice.
    `logprobs` and `prompt_logprobs`: None for none, else how many of the likeliest tokens to report
    beside the one that is there.

    `grammar` "": any text. Else every choice is a text of this grammar, and ends where that ends:
    Lark or a JSON object, both as llguidance reads them. Whoever mints it has checked that it
    compiles; it is at most MAX_GRAMMAR_BYTES long.
    """

    n: int = 1
    first_choice: int = 0
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    seed: int = 0
    min_tokens: int = 0
    max_tokens: int = 16
    stop_token_ids: tuple[int, ...] = ()
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    grammar: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLogprobs:
    """Natural log-probabilities at one place: of the token there, and of the likeliest ones.

    They are the model's own, before penalties, bias, temperature and filters. `top` has (id,
    logprob) pairs, likeliest first.
    """

    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRun:
    """Consecutive tokens of one choice. `first_index` counts its generated tokens from 0.

    `logprobs` is as long as `token_ids` where they were asked for, else empty.
    """

    request: RequestKey
    first_index: int
    token_ids: tuple[int, ...]
    finish_reason: FinishReason | None = None
    choice: int = 0
    logprobs: tuple[TokenLogprobs, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Prefix:
    """The hashes of a prompt's blocks, by which KV of equal beginnings is found. See epd.prefix.

    `root` is the parent of the first block. `blocks[k]` covers tokens [0, 16 * (k + 1)). `tail`
    says what the tokens after the last whole block hold besides their ids.
    """

    root: bytes
    blocks: tuple[bytes, ...]
    tail: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """What a process tells others of its host about its GPU.

    `device` is the GPU's UUID, `reaches` names all GPUs whose memory it can read, its own first.
    `handle` opens the memory that it lends (b"": it lends none). `lease` names a file that it holds
    locked as long as it lives.
    """

    device: str
    reaches: tuple[str, ...]
    lease: str
    handle: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Remote:
    """What a process tells other hosts that read its shared-memory arena over the network.

    `metadata` describes it to NIXL. One that lends nothing, and only reads, has no `num_bytes`.
    """

    metadata: bytes
    address: int = 0
    num_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rank:
    """What another rank of a worker than its first lends of its own memory, or reads with.

    `name`, `incarnation`, `control` and `bulk` are of sockets of its own, as a Member's are; ""
    where it has none.
    """

    segment: str = ""
    gpu: Gpu | None = None
    remote: Remote | None = None
    name: str = ""
    incarnation: str = ""
    control: str = ""
    bulk: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One registered process role as the membership table knows it.

    `control` and `bulk` are addresses that its two ROUTER sockets are bound to. `host` is equal for
    processes that can share memory. `segment` names its shared-memory arena ("" for none).
    Language workers say their `kv_tokens`, `max_context` and the `attention` backend they chose,
    encode workers their `modalities`. `gpu` is None where memory of a GPU is neither lent nor read,
    `remote` where none is between hosts. All of this is rank 0's; `ranks` has the others.
    """

    name: str
    incarnation: str
    stages: tuple[Stage, ...]
    control: str
    bulk: str
    host: str
    pool: str
    segment: str = ""
    modalities: tuple[Modality, ...] = ()
    kv_tokens: int = 0
    max_context: int = 0
    pid: int = 0
    attention: str = ""
    gpu: Gpu | None = None
    remote: Remote | None = None
    ranks: tuple[Rank, ...] = ()
