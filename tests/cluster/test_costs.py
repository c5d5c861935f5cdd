"""What items may take, guessed from what is known before they are opened."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from epd.cluster import ItemJob
from epd.cluster.costs import FRAME, PICTURE, cost
from epd.types import ItemForm, MediaOptions, Modality

PHOTO = ItemJob(modality=Modality.IMAGE, url=None, text_before="")
FILM = replace(PHOTO, modality=Modality.VIDEO)
SOUND = replace(PHOTO, modality=Modality.AUDIO)


def test_pixels_count_before_bytes_and_bytes_before_nothing() -> None:
    """A small file may be a large picture."""
    assert cost(PHOTO) == PICTURE
    assert cost(replace(PHOTO, num_bytes=100)) < PICTURE
    assert cost(replace(PHOTO, num_bytes=100, pixels=7_000_000)) == 7_000_000


def test_a_video_costs_its_frames() -> None:
    """As many as were asked for, or came one by one, or its time and rate make."""
    eight = replace(FILM, options=MediaOptions(num_frames=8), num_bytes=1)
    timed = replace(FILM, options=MediaOptions(fps=2.0, duration_s=4.0))
    frames = replace(FILM, form=ItemForm.FRAMES, pieces=(("f", 1),) * 8)
    assert cost(eight) == cost(timed) == cost(frames) == 8 * FRAME
    assert cost(replace(frames, pixels=1000)) == 8000


def test_a_long_sound_costs_more_than_a_short_one() -> None:
    assert cost(replace(SOUND, num_bytes=64_000)) == 2 * cost(replace(SOUND, num_bytes=32_000))


def test_ready_made_embeddings_cost_hardly_anything() -> None:
    """No tower runs."""
    embeds = replace(PHOTO, form=ItemForm.EMBEDS, num_bytes=1_000_000)
    assert cost(embeds) < cost(replace(PHOTO, num_bytes=1_000_000)) / 10


@given(
    st.sampled_from(Modality),
    st.sampled_from(ItemForm),
    st.integers(0, 1 << 40),
    st.integers(0, 1 << 40),
    st.none() | st.integers(0, 1000),
)
def test_nothing_is_free(
    modality: Modality, form: ItemForm, num_bytes: int, pixels: int, frames: int | None
) -> None:
    """Whatever a client says of it."""
    options = MediaOptions(num_frames=frames)
    job = replace(PHOTO, modality=modality, form=form, num_bytes=num_bytes, pixels=pixels)
    assert cost(replace(job, options=options)) >= 1
