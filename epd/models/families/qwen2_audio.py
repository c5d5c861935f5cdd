"""Qwen2-Audio: Whisper's encoder before a Qwen2 model.

The tower takes windows of one length, [mel bins, window] with what is behind the sound masked, and
a projector follows it. Positions are plain: one axis, and a sound's rows count up as text does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from epd.errors import BadMedia, UnsupportedModel
from epd.media.decoded import Media, Sound, Tensors
from epd.models.adapter import Adapter, Asked, Prepared
from epd.models.families.hearing import AUDIO_EMBEDS, hear, load_extractor, ready_rows
from epd.models.family import FamilySpec
from epd.models.sections import text_section
from epd.types import ItemLayout, Modality

if TYPE_CHECKING:
    import torch

    from epd.models.spec import Checkpoint

# What transformers' processor renders where the folder says nothing.
TEMPLATE = """\
{%- set sounds = namespace(seen=0) -%}
{%- for message in messages -%}
{%- if loop.first and message['role'] != 'system' -%}
{{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' -}}
{%- endif -%}
{{- '<|im_start|>' + message['role'] + '\\n' -}}
{%- if message['content'] is string -%}
{{- message['content'] -}}
{%- else -%}
{%- for content in message['content'] -%}
{%- if 'audio' in content or 'audio_url' in content or content['type'] == 'audio' -%}
{%- set sounds.seen = sounds.seen + 1 -%}
{{- 'Audio ' ~ sounds.seen ~ ': <|audio_bos|><|AUDIO|><|audio_eos|>\\n' -}}
{%- elif 'text' in content -%}
{{- content['text'] -}}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""


class Qwen2Audio(Adapter):
    """Adapter of Qwen2AudioForConditionalGeneration."""

    batch_invariant: ClassVar[bool] = True  # every sound fills one window, and sees no other

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__(checkpoint)
        config = checkpoint.config
        audio = config.get("audio_config") or {}
        self.window = 2 * int(audio.get("max_source_positions", 1500))
        self.hidden = int(text_section(config)["hidden_size"])
        self.token_id = int(config.get("audio_token_index", 151646))

    # ---- towers

    def tower_parts(self, modalities: Sequence[Modality]) -> tuple[str, ...]:
        return ("model.audio_tower", "model.multi_modal_projector")

    def load_processors(self, modalities: Sequence[Modality]) -> dict[Modality, Any]:
        extractor = load_extractor(self.checkpoint)
        if extractor.nb_max_frames != self.window:
            raise UnsupportedModel(
                f"{self.checkpoint.path}: the window of the feature extractor is"
                f" {extractor.nb_max_frames} frames, of the tower {self.window}"
            )
        return {Modality.AUDIO: extractor}

    def sampling_rate(self, processors: Mapping[Modality, Any]) -> int:
        return int(processors[Modality.AUDIO].sampling_rate)

    def prepare(self, processors: Mapping[Modality, Any], media: Media, asked: Asked) -> Prepared:
        import torch

        assert isinstance(media, Sound)
        heard = hear(processors[Modality.AUDIO], media, asked.options, window=True)
        num_rows = _num_rows(heard.num_frames)
        if num_rows < 1:
            raise BadMedia(f"the sound is too short: {len(media.samples)} samples")
        features = heard.frames.to(getattr(torch, asked.dtype))
        return Prepared(
            layout=self._layout(num_rows, asked),
            inputs={
                "input_features": features[None],
                "num_frames": torch.tensor([heard.num_frames]),
            },
            patches=self.window // 2,
        )

    def from_embeds(self, tensors: Tensors, asked: Asked) -> Prepared:
        rows = ready_rows(tensors, hidden=self.hidden, dtype=asked.dtype)
        return Prepared(layout=self._layout(len(rows), asked), inputs={}, patches=0, rows=rows)

    def _layout(self, num_rows: int, asked: Asked) -> ItemLayout:
        return ItemLayout(
            modality=asked.modality,
            token_ids=(self.token_id,) * num_rows,
            row_spans=((0, num_rows),),
            width=self.hidden,
            dtype=asked.dtype,
            content_key=asked.content_key,
            advance=num_rows,
        )

    def encode(
        self, model: Any, modality: Modality, batch: Sequence[Prepared], device: torch.device
    ) -> list[torch.Tensor]:
        import torch
        from transformers.masking_utils import create_bidirectional_mask

        from epd.attention.staging import put

        tower, projector = model.model.audio_tower, model.model.multi_modal_projector
        features = torch.cat([item.inputs["input_features"] for item in batch])
        num_frames = torch.cat([item.inputs["num_frames"] for item in batch])
        # Computed on the CPU, where it looks at its values without waiting for the device.
        num_heard, _ = tower._get_feat_extract_output_lengths(num_frames)
        length = self.window // 2
        mask = create_bidirectional_mask(
            config=tower.config,
            inputs_embeds=torch.zeros(len(batch), length, 1, dtype=features.dtype),
            attention_mask=(torch.arange(length) < num_heard[:, None]).long(),
        )
        on_device = None if mask is None else put(mask, device)
        found = tower(put(features, device), attention_mask=on_device).last_hidden_state
        rows = projector(found)
        return [one[: item.layout.num_rows] for one, item in zip(rows, batch, strict=True)]


def _num_rows(num_frames: int) -> int:
    """One convolution halves, rounding up, and the pooling behind it halves, rounding down."""
    return ((num_frames - 1) // 2 + 1) // 2


FAMILY = FamilySpec(
    name="qwen2_audio",
    architectures=("Qwen2AudioForConditionalGeneration",),
    adapter=Qwen2Audio,
    modalities=(Modality.AUDIO,),
    placeholders={Modality.AUDIO: "<|AUDIO|>"},
    rotary="1d",
    towers={Modality.AUDIO: ("audio_tower", "multi_modal_projector")},
    embeds={Modality.AUDIO: AUDIO_EMBEDS},
    default_template=TEMPLATE,
)
