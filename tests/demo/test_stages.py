"""One stage begins where another has ended."""

from __future__ import annotations

from copy import deepcopy

import torch

from demo import checkpoint, loop, mixed_stage, verdict_stage, words_stage


def test_a_stage_can_begin_behind_one_of_words() -> None:
    """What a forward of words leaves behind cannot be copied, and a run begins with a copy."""
    whole = mixed_stage.Mixing(
        checkpoint.build_tokenizer(), weight=mixed_stage.READING, pointing=mixed_stage.POINTING
    )
    loss, _ = words_stage.Words(whole.thinker)(words_stage.batch(0))
    assert loss.requires_grad
    assert deepcopy(whole).pointing == mixed_stage.POINTING


def test_the_last_stage_moves_the_language_model_alone() -> None:
    whole = mixed_stage.Mixing(
        checkpoint.build_tokenizer(), weight=mixed_stage.READING, pointing=mixed_stage.POINTING
    )
    before = deepcopy(whole.thinker.state_dict())
    whole.keep_towers()
    run = loop.Run(whole)
    run.step(verdict_stage.batch(0), rate=1e-3)
    moved = {
        name
        for name, weight in whole.thinker.state_dict().items()
        if not torch.equal(weight, before[name])
    }
    assert moved == {
        name
        for name in before
        if not name.startswith(("visual", "model.visual", "audio_tower", "model.audio_tower"))
    }
