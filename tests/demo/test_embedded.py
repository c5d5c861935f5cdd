"""The model that is shipped: it answers rightly, and its card says how often."""

from __future__ import annotations

import json
import re

import pytest
import torch

from demo.checkpoint import build_processor, build_tokenizer
from demo.evaluate import Judge, judge
from demo.tasks import MAIN, TASKS
from epd.cli.default_model import FOLDER

MOST_BYTES = 20_000_000
ROW = re.compile(r"^\| (.+) \| ([\d.]+)% of (\d+) \|", re.MULTILINE)
NOISE = 0.03


@pytest.fixture(scope="module")
def shipped() -> Judge:
    torch.set_num_threads(1)
    return Judge(FOLDER)


def test_it_is_small_and_stored_in_bfloat16() -> None:
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) < MOST_BYTES
    assert json.loads((FOLDER / "config.json").read_text())["dtype"] == "bfloat16"


def test_its_tokenizer_and_processor_are_those_that_the_scripts_build(shipped: Judge) -> None:
    tokenizer = build_tokenizer()
    assert shipped.processor.tokenizer.get_vocab() == tokenizer.get_vocab()
    built = build_processor(tokenizer)
    assert shipped.processor.chat_template == built.chat_template
    for part in ("image_processor", "video_processor", "feature_extractor"):
        theirs, ours = getattr(shipped.processor, part).to_dict(), getattr(built, part).to_dict()
        for name in (
            "size",
            "patch_size",
            "min_frames",
            "max_frames",
            "hop_length",
            "feature_size",
        ):
            assert theirs.get(name) == ours.get(name)


def test_it_answers_each_kind_of_question_in_its_words_and_most_of_them_rightly(
    shipped: Judge,
) -> None:
    """Two prompts of each kind; the whole evaluation is the slow test."""
    results = [judge(shipped, task, 2) for task in MAIN]
    wrong = [row for result in results for row in result.wrong]
    assert len(wrong) <= 0.25 * 2 * len(MAIN), wrong
    assert all(said.endswith((".", "!")) for _, _, said in wrong)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_card_says_how_often_it_is_right(shipped: Judge) -> None:
    card = (FOLDER / "README.md").read_text()
    written = {
        name: (float(share) / 100, int(num))
        for name, share, num in ROW.findall(card.split("**unseen wordings**")[0])
    }
    groups = {task.group for task in TASKS}
    assert written and not groups & set(written)
    for task in MAIN:
        share, num = written[task.name]
        assert abs(judge(shipped, task, num).share - share) <= NOISE, task.name
