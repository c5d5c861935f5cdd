"""The encoder over a real tiny checkpoint: what it keeps is what the towers give."""

from __future__ import annotations

import io
import queue
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

from epd.config import EncodeConfig, MediaConfig
from epd.config.media import ImageLimits
from epd.encoder import Encoder, ItemBroken, ItemEncoded, ItemPrepared
from epd.media.decoded import Picture
from epd.media.image import load_image
from epd.models.spec import read_checkpoint
from epd.models.towers import Towers, load_towers
from epd.types import ItemKey, Modality
from epd.wire.messages import EncodeItem
from tests.checkpoints import FAMILIES, build
from tests.models.pictures import asked


@pytest.fixture(scope="module", params=FAMILIES)
def towers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Towers:
    """Towers of each family's tiny checkpoint."""
    path: Path = build(request.param, tmp_path_factory.mktemp("checkpoint"))
    checkpoint = read_checkpoint(str(path))
    return load_towers(checkpoint, modalities=(Modality.IMAGE,), device="cpu", dtype="float32")


@pytest.fixture
def inbox() -> queue.SimpleQueue[object]:
    """Where events go."""
    return queue.SimpleQueue()


@pytest.fixture
def encoder(towers: Towers, inbox: queue.SimpleQueue[object]) -> Iterator[Encoder]:
    """A running encoder."""
    encoder = Encoder(towers, EncodeConfig(), MediaConfig(), "settings", inbox.put)
    yield encoder
    encoder.close()


def submit(encoder: Encoder, index: int, data: bytes) -> ItemKey:
    """An inline image."""
    item = ItemKey("r", index, 0)
    job = EncodeItem(item=item, modality=Modality.IMAGE, url=None, text_before="")
    encoder.submit(job, data)
    return item


def picture(width: int, height: int) -> bytes:
    """A PNG with something in it."""
    file = io.BytesIO()
    Image.linear_gradient("L").resize((width, height)).convert("RGB").save(file, "PNG")
    return file.getvalue()


def test_pictures_of_many_sizes_get_the_rows_of_the_towers(
    encoder: Encoder, towers: Towers, inbox: queue.SimpleQueue[object]
) -> None:
    """Prepared on several threads, encoded in one batch, against one at a time.

    Each has memory of its own, or an item that is released would keep the whole batch alive.
    """
    files = [picture(*size) for size in ((56, 56), (200, 90), (31, 140), (112, 112))]
    items = [submit(encoder, index, data) for index, data in enumerate(files)]
    events = [inbox.get(timeout=60) for _ in items]
    assert all(isinstance(event, ItemPrepared) and encoder.prepared(event) for event in events)
    results = encoder.step()
    assert {result.item for result in results if isinstance(result, ItemEncoded)} == set(items)
    for item, data in zip(items, files, strict=True):
        image = load_image(data, ImageLimits())
        alone = towers.prepare(Picture(image=image), asked(Modality.IMAGE))
        (expected,) = towers.encode([alone])
        rows = encoder.rows(item)
        assert rows is not None
        assert rows.untyped_storage().nbytes() == rows.nbytes and not rows.is_inference()
        torch.testing.assert_close(rows, expected, rtol=1e-5, atol=1e-5)
        assert ItemEncoded(item, alone.layout.num_rows) in results


def test_odd_pictures_are_answered(encoder: Encoder, inbox: queue.SimpleQueue[object]) -> None:
    """Tiny and very long ones: rows, or a refusal that names them; then the next one works."""
    for index, size in enumerate(((1, 1), (1, 40), (2000, 3), (40, 40))):
        item = submit(encoder, index, picture(*size))
        event = inbox.get(timeout=60)
        if isinstance(event, ItemBroken):
            assert event.error.status == 422
            assert event.error.message.startswith(f"image {index}: ")
            assert size != (40, 40)
        else:
            assert isinstance(event, ItemPrepared)
            assert encoder.prepared(event)
            assert [result.item for result in encoder.step()] == [item]
            assert encoder.rows(item) is not None
