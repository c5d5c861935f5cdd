"""Both halves on a CUDA device give what Hugging Face gives on the CPU."""

from __future__ import annotations

import pytest
import torch

from epd.models.language import LanguageModel, load_language
from epd.models.spec import Checkpoint
from epd.models.towers import Towers, load_towers
from tests.models import stand_in
from tests.models.generate import greedy, merged
from tests.models.pictures import messages, pictures, prompt
from tests.reference import Reference
from tests.waits import waits

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def cuda_towers(checkpoint: Checkpoint) -> Towers:
    modalities = checkpoint.spec.modalities
    return load_towers(checkpoint, modalities=modalities, device="cuda", dtype="float32")


@pytest.fixture(scope="module")
def cuda_language(checkpoint: Checkpoint) -> LanguageModel:
    with stand_in.attention():
        return load_language(checkpoint, device="cuda", dtype="float32")


@pytest.mark.parametrize("num", [0, 1, 3, 6])
def test_tokens_equal_the_whole_model(
    num: int, reference: Reference, cuda_towers: Towers, cuda_language: LanguageModel
) -> None:
    asked, items = prompt(reference, cuda_towers, num)
    _, new_ids = reference.generate(
        messages(num), pictures(num), 8, repetition_penalty=1.0, eos_token_id=-1
    )
    inputs = merged(cuda_language, asked, cuda_towers.encode(items))
    assert greedy(cuda_language, inputs, *cuda_language.positions(asked), 8) == new_ids


@pytest.mark.simulated
def test_a_forward_never_waits_for_the_device(cuda_language: LanguageModel) -> None:
    ids = torch.arange(8, device="cuda")
    positions = ids.expand(3, -1)
    levels = cuda_language.deepstack_levels
    slices = torch.ones(levels, 3, cuda_language.hidden_size, device="cuda")
    deepstack = (ids[2:5], slices) if levels else None
    with waits() as who:
        hidden = cuda_language.forward(
            cuda_language.embed(ids), positions, stand_in.Packed([8]), deepstack
        )
        cuda_language.logits(hidden[-1:])
    assert not who
