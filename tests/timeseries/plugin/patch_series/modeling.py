"""The model: patches of a time series, seen together by one layer, before a Qwen2 language model.

Written as transformers writes its models; it knows nothing of epd. Every channel is cut into
patches of its own, so any number of channels will do.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import GenerationMixin, PreTrainedConfig, PreTrainedModel, Qwen2Config, Qwen2Model
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast


class PatchSeriesConfig(PreTrainedConfig):  # type: ignore[misc]
    """`patch_length` steps make a patch; no channel has more than `max_patches` of them."""

    model_type = "patch_series"
    sub_configs = {"text_config": Qwen2Config}

    text_config: dict[str, Any] | PreTrainedConfig | None = None
    patch_length: int = 8
    max_patches: int = 64
    tower_hidden_size: int = 32
    series_token_id: int = 0
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        if not isinstance(self.text_config, PreTrainedConfig):
            self.text_config = Qwen2Config(**(self.text_config or {}))
        super().__post_init__(**kwargs)


class PatchSeriesTower(nn.Module):
    """[patches, 2 * patch_length] and the places in time [patches] -> [patches, hidden]."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        hidden = config.tower_hidden_size
        self.patches = nn.Linear(2 * config.patch_length, hidden)
        self.places = nn.Embedding(config.max_patches, hidden)
        self.attention = nn.MultiheadAttention(hidden, 2, batch_first=True)
        self.norm = nn.LayerNorm(hidden)

    def forward(self, patches: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        """Every patch of one series sees all others."""
        hidden = (self.patches(patches) + self.places(places))[None]
        seen, _ = self.attention(hidden, hidden, hidden, need_weights=False)
        out: torch.Tensor = self.norm(hidden + seen)[0]
        return out


class PatchSeriesPreTrainedModel(PreTrainedModel):  # type: ignore[misc]
    """What transformers' loader wants to know."""

    config: PatchSeriesConfig
    config_class = PatchSeriesConfig
    base_model_prefix = "model"
    input_modalities = ("text",)
    _supports_sdpa = True
    _supports_attention_backend = True


class PatchSeriesModel(PatchSeriesPreTrainedModel):
    """Tower, projector and language model."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.series_tower = PatchSeriesTower(config)
        self.series_projector = nn.Linear(config.tower_hidden_size, config.text_config.hidden_size)
        self.language_model = Qwen2Model(config.text_config)
        self.post_init()

    def get_input_embeddings(self) -> Any:
        """Of the language model."""
        return self.language_model.get_input_embeddings()

    def get_series_features(self, patches: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        """Of one series: a row per patch, as wide as the language model."""
        rows: torch.Tensor = self.series_projector(self.series_tower(patches, places))
        return rows

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        series: list[tuple[torch.Tensor, torch.Tensor]] | None = None,
        inputs_embeds: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """`series`: (patches, places) of each, in the order of the prompt, batch size 1."""
        if inputs_embeds is None:
            inputs_embeds = self.get_input_embeddings()(input_ids)
        if series is not None and input_ids is not None:
            rows = torch.cat([self.get_series_features(*one) for one in series])
            mask = torch.eq(input_ids, self.config.series_token_id)[..., None]
            inputs_embeds = inputs_embeds.masked_scatter(mask, rows.to(inputs_embeds.dtype))
        out: BaseModelOutputWithPast = self.language_model(inputs_embeds=inputs_embeds, **kwargs)
        return out


class PatchSeriesForConditionalGeneration(
    PatchSeriesPreTrainedModel,
    GenerationMixin,  # type: ignore[misc]
):
    """With a head."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        text = config.text_config
        self.model = PatchSeriesModel(config)
        self.lm_head = nn.Linear(text.hidden_size, text.vocab_size, bias=False)
        self.post_init()

    def get_input_embeddings(self) -> Any:
        """Of the language model."""
        return self.model.get_input_embeddings()

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        series: list[tuple[torch.Tensor, torch.Tensor]] | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Logits of every place."""
        out = self.model(input_ids=input_ids, series=series, **kwargs)
        return CausalLMOutputWithPast(
            logits=self.lm_head(out.last_hidden_state), past_key_values=out.past_key_values
        )

    def prepare_inputs_for_generation(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """The series are in the cache after the first step."""
        series = kwargs.pop("series", None)
        first = kwargs.get("is_first_iteration", True)
        inputs: dict[str, Any] = super().prepare_inputs_for_generation(*args, **kwargs)
        inputs["series"] = series if first else None
        return inputs
