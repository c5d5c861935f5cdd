"""A family from outside is found, loads, and answers as its plain torch model does."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from epd.errors import BadMedia, ConfigError
from epd.media.decoded import Series
from epd.models.adapter import Prepared
from epd.models.families import families
from epd.models.sizes import num_weights, text_size
from epd.prompt.tokenizer import read_template, read_tokenizer
from epd.types import MediaOptions, Modality
from tests.models import halves
from tests.models.halves import Halves, resolve
from tests.timeseries import build, environment

TEXT = ["Look at ", " and at ", ", then at ", ": which one rises?"]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("checkpoints") / "patch_series")


@pytest.fixture(scope="module")
def both(path: Path) -> Halves:
    return halves.load(path)


@pytest.fixture(scope="module")
def whole(path: Path) -> Any:
    modeling: Any = import_module("patch_series.modeling")
    model = modeling.PatchSeriesForConditionalGeneration.from_pretrained(path)
    return model.eval()


def series(steps: int, channels: int = 1, seed: int = 0) -> Series:
    time = np.arange(steps)[:, None]
    waves = np.sin(time / (3 + seed) + np.arange(channels)) * (1 + seed) + time / 50
    return Series(values=waves.astype(np.float32), rate=None)


def prepare(both: Halves, one: Series, **options: Any) -> Prepared:
    return both.prepare(Modality.TIME_SERIES, one, options=MediaOptions(**options))


def text_ids(path: Path, num: int) -> list[list[int]]:
    """The rendered chat of `num` series between words, cut at the placeholders."""
    tokenizer = read_tokenizer(path)
    content: list[dict[str, str]] = []
    for i in range(num):
        content += [{"type": "text", "text": TEXT[i]}, {"type": "time_series"}]
    content.append({"type": "text", "text": TEXT[-1]})
    rendered = tokenizer.apply_chat_template(
        [{"role": "user", "content": content}],
        chat_template=read_template(path, tokenizer, None),
        tokenize=False,
        add_generation_prompt=True,
    )
    texts = rendered.split("<|series_pad|>")
    return [tokenizer(text, add_special_tokens=False).input_ids for text in texts]


@pytest.mark.parametrize("shapes", [[(100, 1)], [(7, 3), (200, 1), (64, 2)]], ids=str)
def test_tokens_equal_the_plain_model(
    shapes: list[tuple[int, int]], path: Path, both: Halves, whole: Any
) -> None:
    items = [prepare(both, series(*shape, seed=i)) for i, shape in enumerate(shapes)]
    asked = resolve(text_ids(path, len(items)), items)
    inputs = [(item.inputs["patches"], item.inputs["places"]) for item in items]
    ids = torch.tensor([asked.token_ids()])
    expected = whole.generate(
        ids, series=inputs, max_new_tokens=8, do_sample=False, eos_token_id=-1
    )
    rows = both.towers.encode(items)
    assert both.answer(asked, rows, 8) == expected[0, ids.shape[1] :].tolist()
    swapped = [0 * rows[0], *rows[1:]]
    assert both.answer(asked, swapped, 8) != both.answer(asked, rows, 8)


def test_rows_do_not_depend_on_the_rest_of_the_batch(both: Halves) -> None:
    items = [prepare(both, series(20 + 30 * i, 1 + i, seed=i)) for i in range(4)]
    assert not both.towers.batch_invariant
    for item, rows in zip(items, both.towers.encode(items), strict=True):
        assert torch.equal(both.towers.encode([item])[0], rows)


def test_a_series_longer_than_the_model_reads_is_refused_unless_it_may_be_cut(
    both: Halves,
) -> None:
    with pytest.raises(BadMedia, match="600 steps; this model reads 512 at most"):
        prepare(both, series(600))
    assert prepare(both, series(600), truncation=True).layout.num_rows == 64


@pytest.mark.parametrize("values", [np.zeros((0, 1)), np.full((5, 1), np.nan)], ids=["none", "nan"])
def test_a_series_without_finite_values_is_refused(values: Any, both: Halves) -> None:
    with pytest.raises(BadMedia, match="finite"):
        prepare(both, Series(values=values.astype(np.float32)))


def test_sizes_are_known_without_torch(path: Path, both: Halves, whole: Any) -> None:
    towers, language = num_weights(both.checkpoint, [Modality.TIME_SERIES])
    assert towers + language == sum(weight.numel() for weight in whole.parameters())
    assert text_size(both.checkpoint).hidden == 64


def test_other_processes_find_it_by_the_path_alone(path: Path) -> None:
    program = (
        "import sys; sys.modules['torch'] = sys.modules['transformers'] = None\n"
        "from epd.models.spec import read_checkpoint\n"
        "print(read_checkpoint(sys.argv[1]).spec.name)"
    )
    command = [sys.executable, "-c", program, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment())
    assert done.stdout.strip() == "patch_series", done.stderr
    without = subprocess.run(command, capture_output=True, text=True, env={"PYTHONPATH": ""})
    assert "PatchSeriesForConditionalGeneration is not supported" in without.stderr


@pytest.mark.parametrize(
    ("value", "words"),
    [("json:dumps", "is no FamilySpec"), ("nowhere:FAMILY", "No module named 'nowhere'")],
)
def test_an_installed_entry_that_cannot_be_used_is_named(
    value: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "odd-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: odd\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text(f"[epd.families]\nodd = {value}\n")
    monkeypatch.syspath_prepend(tmp_path)
    families.cache_clear()
    try:
        with pytest.raises(ConfigError, match=words):
            families()
    finally:
        monkeypatch.undo()
        families.cache_clear()
