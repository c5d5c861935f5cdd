"""Language models with a sliding window, against generate(): prompts that are longer than it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from epd.attention import ATTENTION, PagedBatch, PagedSequence, SdpaBackend, kernels, register
from epd.config.sections import LanguageConfig
from epd.engine import Engine, EngineRequest
from epd.models.heard import refuse_unheard
from epd.models.language import LanguageModel, load_language
from epd.models.spec import read_checkpoint
from epd.models.torchvision_shim import prepare_torchvision
from epd.types import Prompt, RequestKey, SamplingParams
from tests.checkpoints import build
from tests.reference import Reference

torch.set_num_threads(1)

WINDOW = 9
LENGTHS = (40, WINDOW, 23)
MAX_TOKENS = 14

# Of half of the layers, where configurations can say so; of all, as Mistral's.
SOME = {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 2}
WINDOWED: dict[str, dict[str, Any]] = {
    "qwen2_5_vl": SOME,
    "qwen2_5_omni": SOME,
    "llava_onevision": SOME,
    "llava_next": {"sliding_window": WINDOW},
}


def prompts(vocabulary: int) -> list[list[int]]:
    random = torch.Generator().manual_seed(5)
    return [torch.randint(3, vocabulary, (n,), generator=random).tolist() for n in LENGTHS]


def set_text(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    file = folder / "config.json"
    config = json.loads(file.read_text())
    change(config["text_config"])
    file.write_text(json.dumps(config))


class Windowed:
    """A tiny checkpoint with a window, and what transformers answers."""

    def __init__(self, family: str, folder: Path) -> None:
        self.folder = build(family, folder)
        set_text(self.folder, lambda text: self._open(text, WINDOWED[family]))
        model = Reference(self.folder).model
        self.prompts = prompts(200)
        self.expected = [_generate(model, ids) for ids in self.prompts]

    @staticmethod
    def _open(text: dict[str, Any], window: dict[str, Any]) -> None:
        text.pop("layer_types", None)
        text.update(window)

    def language(self) -> LanguageModel:
        return load_language(read_checkpoint(self.folder), device="cpu", dtype="float32")

    def answers(
        self, language: LanguageModel, attention: str = "sdpa", num: int = MAX_TOKENS
    ) -> list[list[int]]:
        """All prompts in one engine: in chunks, beside others' single tokens."""
        config = LanguageConfig(kv_tokens=512, max_step_tokens=16, attention=attention)
        engine = Engine(language, config)
        for number, ids in enumerate(self.prompts):
            positions, delta = language.positions(Prompt(text=(tuple(ids),), items=()))
            request = EngineRequest(
                key=RequestKey(str(number), 0),
                token_ids=ids,
                positions=positions,
                position_delta=delta,
                sampling=SamplingParams(max_tokens=num),
            )
            assert engine.reserve(request.key, len(ids) + MAX_TOKENS) is not None
            engine.start(request)
        found: list[list[int]] = [[] for _ in self.prompts]
        while engine.has_work:
            result = engine.step()
            assert not result.failed
            for run in result.tokens:
                found[int(run.request.request_id)] += run.token_ids
        engine.check()
        return found


def _generate(model: Any, ids: list[int]) -> list[int]:
    options: dict[str, Any] = {"do_sample": False, "repetition_penalty": 1.0, "eos_token_id": -1}
    given = torch.tensor([ids])
    with torch.inference_mode():
        found = model.generate(
            input_ids=given,
            attention_mask=torch.ones_like(given),
            max_new_tokens=MAX_TOKENS,
            pad_token_id=0,
            **options,
        )
    return list(found[0, len(ids) :].tolist())


@pytest.fixture(scope="module", params=WINDOWED)
def windowed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Windowed:
    return Windowed(request.param, tmp_path_factory.mktemp("windows") / "tiny")


def test_answers_are_those_of_generate(windowed: Windowed) -> None:
    language = windowed.language()
    assert windowed.answers(language) == windowed.expected


def test_a_window_that_is_ignored_would_be_noticed(
    windowed: Windowed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Negative control: every prompt but the one that is no longer than the window at first."""
    from epd.attention.base import StepAttention

    attend = StepAttention.attend
    monkeypatch.setattr(
        StepAttention, "attend", lambda self, *a, window, **k: attend(self, *a, window=None, **k)
    )
    found = windowed.answers(windowed.language())
    assert found[0] != windowed.expected[0] and found[2] != windowed.expected[2]


def test_the_triton_backend_takes_the_window(tmp_path: Path) -> None:
    if not kernels.interpreted():
        pytest.skip("kernels are compiled here")
    windowed = Windowed("llava_next", tmp_path / "tiny")
    windowed.prompts = windowed.prompts[2:]
    assert windowed.answers(windowed.language(), "triton", 2) == [windowed.expected[2][:2]]


@pytest.mark.parametrize("kind", ["gemma3_text", "qwen3", "phi3", "cohere2"])
def test_other_decoders_with_windows(kind: str) -> None:
    """Those that no tiny checkpoint has: in three parts as transformers computes them at once."""
    decoder = _decoder(kind)
    refuse_unheard(decoder, kind)
    ids, positions = torch.randint(3, 90, (1, 20)), torch.arange(20)[None]
    with torch.inference_mode():
        expected = decoder(ids, position_ids=positions, use_cache=False).last_hidden_state
        decoder.config._attn_implementation = ATTENTION
        embeds = decoder.get_input_embeddings()(ids)
        keys, values = torch.zeros(2, 2, 32, 2, 16)
        parts = []
        for first, end in ((0, 9), (9, 19), (19, 20)):
            sequence = PagedSequence(end - first, end, (1, 0))
            hidden = decoder(
                inputs_embeds=embeds[:, first:end],
                position_ids=positions[:, first:end],
                attention_mask=None,
                past_key_values=None,
                use_cache=False,
                plan=SdpaBackend().bind(PagedBatch((sequence,), keys, values, 16)),
            ).last_hidden_state
            parts.append(hidden)
    torch.testing.assert_close(torch.cat(parts, 1), expected, atol=1e-5, rtol=1e-5)


def _decoder(kind: str) -> Any:
    """Two layers, the second with full attention where the class knows such layers."""
    prepare_torchvision()
    register()
    from transformers import CONFIG_MAPPING, AutoModel

    sizes: dict[str, Any] = {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "vocab_size": 99,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "sliding_window": WINDOW,
    }
    if kind == "qwen3":
        sizes["use_sliding_window"] = True
    if kind != "phi3":
        sizes["layer_types"] = ["sliding_attention", "full_attention"]
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = AutoModel.from_config(CONFIG_MAPPING[kind](**sizes)).eval()
        for weight in model.parameters():
            torch.nn.init.normal_(weight, std=0.3)
    return model
