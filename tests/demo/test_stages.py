"""One stage begins where another has ended."""

from __future__ import annotations

from copy import deepcopy

from demo import checkpoint, mixed_stage, words_stage


def test_a_stage_can_begin_behind_one_of_words() -> None:
    """What a forward of words leaves behind cannot be copied, and a run begins with a copy."""
    whole = mixed_stage.Mixing(
        checkpoint.build_tokenizer(), weight=mixed_stage.READING, pointing=mixed_stage.POINTING
    )
    loss, _ = words_stage.Words(whole.thinker)(words_stage.batch(0))
    assert loss.requires_grad
    assert deepcopy(whole).pointing == mixed_stage.POINTING
