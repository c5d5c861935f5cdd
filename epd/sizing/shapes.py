"""What config.json says of towers and language model, in the words of the formulas.

Known are the vision towers of Qwen-VL and the encoders of sound that are Whisper's; what a file
leaves out is its class's default.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from epd.errors import ConfigError, UnsupportedModel
from epd.models.sections import Section, text_section
from epd.models.sizes import ITEM_BYTES, refuse_division, text_size
from epd.models.spec import Checkpoint, read_checkpoint
from epd.models.storage import FACTOR_BYTES, SIDE, blocks_of
from epd.sizing.formulas import Blocks, Language, Tower
from epd.sizing.items import Patches
from epd.types import Modality

_VISION: Mapping[str, Section] = {
    "qwen2_vl": {"depth": 32, "embed_dim": 1280, "mlp_ratio": 4, "patch_size": 14},
    "qwen2_5_vl": {
        "depth": 32,
        "hidden_size": 1280,
        "intermediate_size": 3420,
        "patch_size": 14,
        "window_size": 112,
        "fullatt_block_indexes": [7, 15, 23, 31],
    },
    "qwen3_vl": {
        "depth": 27,
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "patch_size": 16,
        "deepstack_visual_indexes": [8, 16, 24],
    },
}
_VISION_OF = {
    "qwen2_vl": "qwen2_vl",
    "qwen2_5_vl": "qwen2_5_vl",
    "qwen2_5_omni": "qwen2_5_vl",
    "qwen3_vl": "qwen3_vl",
    "qwen3_vl_moe": "qwen3_vl",
    "qwen3_omni_moe": "qwen3_vl",
}
"""By family: whose tower it has."""
_SOUND_OF = ("qwen2_audio", "qwen2_5_omni")
_SOUND = {"d_model": 1280, "encoder_layers": 32, "encoder_ffn_dim": 5120, "num_mel_bins": 128}
_MERGE, _PAIRS = 2, 2
_NO_LIMIT = 1 << 62


@dataclass(frozen=True, slots=True, kw_only=True)
class Shapes:
    """A checkpoint. A tower is None where it has none that is known. `assumed` is for people.

    `blocks`: how weights of the language model's layers are stored, None where as all others.
    """

    name: str
    language: Language
    value_bytes: int
    blocks: Blocks | None
    vision: Tower | None
    patches: Patches | None
    sound: Tower | None
    assumed: tuple[str, ...]


def read_shapes(folder: str | Path, ranks: int = 1) -> Shapes:
    """Of a folder with a config.json. UnsupportedModel where no formula fits any of its towers.

    `ranks` of each worker of the language model; ConfigError where they cannot divide it.
    """
    checkpoint = read_checkpoint(folder)
    family = checkpoint.spec.name
    if family not in _VISION_OF and family not in _SOUND_OF:
        known = ", ".join(sorted({*_VISION_OF, *_SOUND_OF}))
        raise UnsupportedModel(f"epd size has no formulas for the towers of {family}; for {known}")
    refuse_division(checkpoint, ranks)
    vision = patches = sound = None
    assumed: list[str] = []
    if family in _VISION_OF:
        section = _tower_section(checkpoint, Modality.IMAGE, _VISION[_VISION_OF[family]])
        vision = _vision(section, _VISION_OF[family])
        patches = _patches(section, checkpoint.path, assumed)
    if family in _SOUND_OF:
        sound = _sound(_tower_section(checkpoint, Modality.AUDIO, _SOUND))
    value_bytes = ITEM_BYTES.get(checkpoint.dtype, 2)
    language = _language(checkpoint)
    blocks = _blocks(checkpoint, language, ranks, assumed)
    return Shapes(
        name=checkpoint.name,
        language=language,
        value_bytes=value_bytes,
        blocks=blocks,
        vision=vision,
        patches=patches,
        sound=sound,
        assumed=tuple(assumed),
    )


def _blocks(
    checkpoint: Checkpoint, language: Language, ranks: int, assumed: list[str]
) -> Blocks | None:
    """Of weights in FP8. What becomes of them is told."""
    if blocks_of(checkpoint.config) != (SIDE, SIDE):
        return None
    blocks = Blocks(side=SIDE, value_bytes=1 + FACTOR_BYTES / SIDE**2, ranks=ranks)
    assumed.append("weights in fp8 stay so: a card with Triton, 16 bits, ranks of whole blocks")
    if language.experts > 1 and not blocks.keep(language.intermediate, joint=True):
        width = f"{language.intermediate} wide, no multiple of {SIDE} x {ranks}"
        assumed.append(f"but those of experts are plain: {width}")
    return blocks


def _tower_section(checkpoint: Checkpoint, modality: Modality, defaults: Section) -> Section:
    key = "vision_config" if modality is Modality.IMAGE else "audio_config"
    said = checkpoint.config.get(key) or {}
    return {**defaults, **{key: value for key, value in said.items() if value is not None}}


def _vision(section: Section, kind: str) -> Tower:
    hidden = section["embed_dim"] if kind == "qwen2_vl" else section["hidden_size"]
    side, patch = section.get("spatial_merge_size", _MERGE), section["patch_size"]
    windows = section.get("fullatt_block_indexes")
    return Tower(
        layers=section["depth"],
        hidden=hidden,
        intermediate=section.get("intermediate_size") or int(hidden * section["mlp_ratio"]),
        mlp_products=3 if kind == "qwen2_5_vl" else 2,
        input_values=3 * section.get("temporal_patch_size", _PAIRS) * patch**2,
        merge=side**2,
        full_layers=section["depth"] if windows is None else len(windows),
        window=(section.get("window_size", 0) // patch) ** 2,
        taps=len(section.get("deepstack_visual_indexes") or ()),
    )


def _patches(section: Section, folder: Path, assumed: list[str]) -> Patches:
    least, most = 0, _NO_LIMIT
    try:
        said: dict[str, Any] = json.loads((folder / "preprocessor_config.json").read_bytes())
    except (OSError, ValueError):
        assumed.append("pictures keep their pixels: there is no preprocessor_config.json")
    else:
        size = said.get("size") or {}
        least = said.get("min_pixels") or size.get("shortest_edge") or least
        most = said.get("max_pixels") or size.get("longest_edge") or most
    return Patches(
        patch=section["patch_size"],
        side=section.get("spatial_merge_size", _MERGE),
        pairs=section.get("temporal_patch_size", _PAIRS),
        least=least,
        most=most,
    )


def _sound(section: Section) -> Tower:
    return Tower(
        layers=section["encoder_layers"],
        hidden=section["d_model"],
        intermediate=section["encoder_ffn_dim"],
        mlp_products=2,
        input_values=section["num_mel_bins"],
        merge=1,
        full_layers=section["encoder_layers"],
        window=0,
    )


def _language(checkpoint: Checkpoint) -> Language:
    size, text = text_size(checkpoint), text_section(checkpoint.config)
    experts = text.get("num_experts") or text.get("num_local_experts") or 1
    dense = len(text.get("mlp_only_layers") or ()) if experts > 1 else 0
    inside = text.get("moe_intermediate_size") if experts > 1 else size.intermediate
    if not isinstance(inside, int):
        raise ConfigError(f"{checkpoint.path / 'config.json'}: moe_intermediate_size is {inside!r}")
    return Language(
        layers=size.layers,
        hidden=size.hidden,
        heads=size.heads,
        kv_heads=size.kv_heads,
        head_dim=size.head_dim,
        intermediate=inside,
        vocabulary=checkpoint.vocab_size,
        experts=experts,
        experts_per_token=text.get("num_experts_per_tok") or 1,
        dense_layers=dense,
        dense_intermediate=size.intermediate,
    )
