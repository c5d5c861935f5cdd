"""A tiny random Qwen2.5-VL: transformers' own generate() as the reference, and its language half
in the shape that the engine takes. No files, no processor: image features are random rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch

from epd import attention
from epd.attention.row_writes import Deepstack
from epd.config.sections import LanguageConfig
from epd.engine import Engine, EngineRequest, MultiModalEmbeddingData, Role
from epd.models import mrope
from epd.models.torchvision_shim import prepare_torchvision
from epd.prefix import PREFIX_TOKENS, prefix_of, prefix_root
from epd.types import (
    ItemKey,
    ItemLayout,
    Modality,
    Prefix,
    Prompt,
    PromptItem,
    RequestKey,
    SamplingParams,
    TokenRun,
)

VOCAB = 320
HIDDEN = 64
IMAGE, VISION_START, VISION_END = 300, 301, 302
MERGE = 2


@cache
def reference_model() -> Any:
    """The full model, fp32, random weights that keep greedy outputs varied."""
    prepare_torchvision()
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    torch.manual_seed(7)
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": VOCAB,
            "hidden_size": HIDDEN,
            "intermediate_size": 96,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 4096,
            "rope_parameters": rope,
            "initializer_range": 0.15,
            "bos_token_id": None,
            "eos_token_id": None,
        },
        vision_config={
            "depth": 1,
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_heads": 2,
            "out_hidden_size": HIDDEN,
            "fullatt_block_indexes": [0],
        },
        image_token_id=IMAGE,
        vision_start_token_id=VISION_START,
        vision_end_token_id=VISION_END,
        initializer_range=0.15,
    )
    model = Qwen2_5_VLForConditionalGeneration(config).eval()
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0
    return model


class TinyLanguage:
    """The reference model's language half behind the engine's interface."""

    def __init__(self) -> None:
        full = _twin()
        attention.register()
        full.set_attn_implementation({"text_config": attention.ATTENTION})
        self._language, self._head = full.model.language_model, full.lm_head
        text = self._language.config
        self.num_layers: int = text.num_hidden_layers
        self.kv_heads: int = text.num_key_value_heads
        self.head_dim: int = text.hidden_size // text.num_attention_heads
        self.hidden_size: int = text.hidden_size
        self.deepstack_levels = 0
        self.vocab_size: int = text.vocab_size
        self.dtype = torch.float32
        self.device = torch.device("cpu")
        self.forwards: list[int] = []

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self._language.embed_tokens(ids)
        return found

    def forward(
        self,
        embeds: torch.Tensor,
        positions: torch.Tensor,
        plan: Any,
        deepstack: Deepstack | None = None,
    ) -> torch.Tensor:
        assert deepstack is None
        self.forwards.append(len(embeds))
        out: torch.Tensor = self._language(
            inputs_embeds=embeds[None],
            position_ids=positions[:, None] if positions.ndim == 2 else positions[None],
            attention_mask=None,
            past_key_values=None,
            use_cache=False,
            plan=plan,
        ).last_hidden_state[0]
        return out

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self._head(hidden)
        return out

    def likeliest(self, hidden: torch.Tensor) -> torch.Tensor | None:
        """Of a few rows only, as on a real machine."""
        logits = self.logits(hidden)
        if len(hidden) > 2:
            return None
        return torch.where(logits.isfinite().all(-1), logits.argmax(-1), -1)


def _twin() -> Any:
    """The same weights in a second model, so that the reference keeps its own attention."""
    reference = reference_model()
    model = type(reference)(type(reference.config).from_dict(reference.config.to_dict()))
    model.load_state_dict(reference.state_dict())
    return model.eval()


@dataclass(frozen=True)
class Case:
    """A prompt with its images' features, rotary positions, and delta."""

    prompt: Prompt
    rows: tuple[torch.Tensor, ...]
    positions: torch.Tensor
    delta: int
    grids: tuple[tuple[int, int], ...]

    @property
    def token_ids(self) -> list[int]:
        return self.prompt.token_ids()


def make_case(seed: int, *, texts: Sequence[int], grids: Sequence[tuple[int, int]] = ()) -> Case:
    """Random text of the given lengths with an image of (rows, columns) merged patches between."""
    assert len(texts) == len(grids) + 1
    generator = torch.Generator().manual_seed(seed)
    text = [torch.randint(0, 300, (n,), generator=generator).tolist() for n in texts]
    items, rows = [], []
    for index, (height, width) in enumerate(grids):
        num = height * width
        grid = mrope.grid(1, height, width)
        places, advance = mrope.pack(mrope.behind([mrope.text(1), grid, mrope.text(1)]))
        rows.append(torch.randn(num, HIDDEN, generator=generator))
        items.append(
            PromptItem(
                item=ItemKey(f"r{seed}", index, 0),
                encoder="encode-0",
                layout=ItemLayout(
                    modality=Modality.IMAGE,
                    token_ids=(VISION_START, *([IMAGE] * num), VISION_END),
                    row_spans=((1, 1 + num),),
                    width=HIDDEN,
                    dtype="float32",
                    content_key=b"",
                    positions=places,
                    advance=advance,
                ),
            )
        )
    prompt = Prompt(text=tuple(map(tuple, text)), items=tuple(items))
    positions, delta = _reference_positions(prompt, grids)
    return Case(prompt, tuple(rows), positions, delta, tuple(grids))


def extend(case: Case, tokens: list[int]) -> Case:
    """The prompt of a later attempt: emitted tokens are the tail of the last text."""
    text = (*case.prompt.text[:-1], case.prompt.text[-1] + tuple(tokens))
    prompt = Prompt(text=text, items=case.prompt.items)
    tail = torch.arange(len(case.token_ids), prompt.num_tokens) + case.delta
    positions = torch.cat([case.positions, tail.expand(3, -1)], -1)
    return Case(prompt, case.rows, positions, case.delta, case.grids)


def _inputs(prompt: Prompt, grids: Sequence[tuple[int, int]]) -> dict[str, torch.Tensor]:
    ids = torch.tensor([prompt.token_ids()])
    inputs = {"input_ids": ids, "mm_token_type_ids": (ids == IMAGE).int()}
    if prompt.items:
        inputs["image_grid_thw"] = torch.tensor([(1, h * MERGE, w * MERGE) for h, w in grids])
    return inputs


def _reference_positions(
    prompt: Prompt, grids: Sequence[tuple[int, int]]
) -> tuple[torch.Tensor, int]:
    positions, delta = reference_model().model.get_rope_index(**_inputs(prompt, grids))
    return positions[:, 0].long(), int(delta.flatten()[0])


@torch.no_grad()
def generate(case: Case, max_tokens: int, *, repetition_penalty: float = 1.0) -> list[int]:
    """What transformers says, greedily."""
    inputs: dict[str, Any] = dict(_inputs(case.prompt, case.grids))
    if case.rows:
        from transformers.modeling_outputs import BaseModelOutputWithPooling

        features = BaseModelOutputWithPooling(pooler_output=case.rows)
        inputs["mm_encoder_outputs"] = {"image": features}
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    model = reference_model()
    out = model.generate(
        **inputs,
        max_new_tokens=max_tokens,
        do_sample=False,
        repetition_penalty=repetition_penalty,
    )
    found: list[int] = out[0, len(case.token_ids) :].tolist()
    return found


def key(name: str) -> RequestKey:
    return RequestKey(name, 0)


def landed(case: Case) -> MultiModalEmbeddingData | None:
    """All rows, as one part per item."""
    if not case.rows:
        return None
    data = MultiModalEmbeddingData(case.prompt)
    for index, rows in enumerate(case.rows):
        data.add(index, 0, rows)
    return data


def make_request(name: str, case: Case, sampling: SamplingParams) -> EngineRequest:
    return EngineRequest(
        key=key(name),
        token_ids=case.token_ids,
        positions=case.positions,
        position_delta=case.delta,
        sampling=sampling,
        embeddings=landed(case),
        role=Role.FULL,
    )


def make_engine(**config: int) -> Engine:
    return Engine(TinyLanguage(), LanguageConfig(**{"kv_tokens": 4096, **config}))


def prefix(request: EngineRequest, case: Case, salt: str = "") -> Prefix:
    """What the gateway would send with it."""
    found = prefix_of(case.prompt, prefix_root({}, salt))
    assert len(found.blocks) == len(request.token_ids) // PREFIX_TOKENS
    return found


def start(
    engine: Engine, request: EngineRequest, *, room: int | None = None, case: Case | None = None
) -> int:
    """Reserve for the whole life, or for `room` tokens behind the prompt, then start.

    With a case its cached KV is used: how many tokens of it.
    """
    num = len(request.token_ids)
    most = num + (request.sampling.max_tokens if room is None else room)
    known = None if case is None else prefix(request, case)
    cached = engine.reserve(request.key, most, known, most_cached=num - 1)
    assert cached is not None
    engine.start(request)
    return cached


def finish(engine: Engine) -> dict[str, list[int]]:
    """Step until nothing is left to do; all tokens by request."""
    tokens: dict[str, list[int]] = {}
    while engine.has_work:
        result = engine.step()
        assert not result.failed
        collect(tokens, result.tokens)
        engine.check()
    return tokens


def collect(tokens: dict[str, list[int]], runs: Sequence[TokenRun]) -> None:
    """Choice 0 under the request's name, others under name.choice."""
    for run in runs:
        name = run.request.request_id + (f".{run.choice}" if run.choice else "")
        tokens.setdefault(name, []).extend(run.token_ids)


def greedy(max_tokens: int, **changes: Any) -> SamplingParams:
    return replace(SamplingParams(max_tokens=max_tokens), **changes)


def run_alone(request: EngineRequest, **config: int) -> list[int]:
    """A fresh engine for one request."""
    engine = make_engine(**config)
    start(engine, request)
    return finish(engine)[request.key.request_id]


def hand_over(
    prefill: Engine,
    decode: Engine,
    request: EngineRequest,
    choices: Sequence[tuple[int, int]],
    *,
    room: int | None = None,
    case: Case | None = None,
) -> int:
    """Copy KV in uneven pieces, later ones first, and start the request on the decode engine.

    `choices` have a first token each. With a case what decode has cached is not copied: how much.
    """
    num, layers = len(request.token_ids), 3
    most = num + (request.sampling.max_tokens if room is None else room)
    known = None if case is None else prefix(request, case)
    cached = decode.reserve(request.key, most, known, most_cached=num)
    assert cached is not None
    pieces = [(token, min(token + 37, num)) for token in range(cached, num, 37)]
    for at, end in reversed(pieces):
        for layer, count in ((1, layers - 1), (0, 1)):
            kv = prefill.exchange.read(request.key, at, end - at, layer, count)
            assert kv.is_contiguous()
            decode.exchange.write(request.key, at, layer, kv)
    state = EngineRequest(
        key=request.key,
        token_ids=request.token_ids,
        positions=torch.empty(0, dtype=torch.int64),
        position_delta=request.position_delta,
        sampling=request.sampling,
        first_index=request.first_index,
        role=Role.DECODE,
        choices=tuple(choices),
    )
    decode.start(state)
    return cached
