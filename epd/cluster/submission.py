"""What a client asks for, once it is validated."""

from __future__ import annotations

from dataclasses import dataclass

from epd.types import ItemForm, MediaOptions, Modality, SamplingParams


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemJob:
    """One item of a submission. `url` None: the gateway keeps its bytes.

    `source` is a digest of the bytes, or of the URL; b"" where nobody will ask for it. `num_bytes`
    are those of the file, `pixels` those of a picture or of a frame; 0 where that is not known. The
    rest is as EncodeItem says it.
    """

    modality: Modality
    url: str | None
    text_before: str
    source: bytes = b""
    form: ItemForm = ItemForm.FILE
    pieces: tuple[tuple[str, int], ...] = ()
    options: MediaOptions = MediaOptions()
    num_bytes: int = 0
    pixels: int = 0

    @property
    def needs(self) -> tuple[Modality, ...]:
        """What one encode worker must serve to take it."""
        if self.options.use_audio_in_video:
            return (self.modality, Modality.AUDIO)
        return (self.modality,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A validated request: text[0], items[0], text[1], ... as token ids without placeholders.

    KV is shared with prompts of the same `cache_salt` only. Those of a lower `priority` go first.
    `tells_prompt`: the client wants to see the ids of the whole prompt, items included.
    """

    request_id: str
    text: tuple[tuple[int, ...], ...]
    items: tuple[ItemJob, ...]
    sampling: SamplingParams
    cache_salt: str = ""
    priority: int = 0
    tells_prompt: bool = False
