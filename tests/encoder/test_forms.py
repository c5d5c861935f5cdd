"""Items of every kind and form, from their bytes to what the model's processor gets."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from epd.config import MediaConfig
from epd.config.media import ImageLimits, VideoLimits
from epd.encoder import ItemBroken, ItemEncoded, ItemPrepared
from epd.errors import BadMedia, BadRequest, EpdError, TooLarge
from epd.media.decoded import Clip, Media, Series, Sound, VideoInfo
from epd.media.sampling import evenly
from epd.types import ItemForm, MediaOptions, Modality
from epd.wire.messages import EncodeItem
from tests.encoder.bench import Bench, key, picture
from tests.encoder.towers import PlainTowers
from tests.media.clips import number_of, picture_file, sound_file, tone, video
from tests.media.site import Site, body

SOUND = sound_file(tone(0.5, 44_100), 44_100, "WAV")
CLIP = video(30, sound_s=3.0)
SILENT = video(30)
EMBEDS = save({"image_embeds": np.ones((5, 4), np.float32)})


class Everything(PlainTowers):
    """Every modality, and four frames of a video unless more or fewer are asked for."""

    modalities = tuple(Modality)
    sound_in_video = True

    def sample_frames(self, info: VideoInfo, options: MediaOptions) -> list[int]:
        count = options.num_frames if options.fps is None and options.num_frames else 4
        return evenly(count, info.num_frames)


def opened(benches: list[Bench], towers: PlainTowers | None = None, **media: Any) -> Bench:
    config = MediaConfig(allow_private_addresses=True, **media)
    benches.append(Bench(media=config, towers=towers or Everything()))
    return benches[-1]


def job(
    modality: Modality,
    index: int = 0,
    *,
    form: ItemForm = ItemForm.FILE,
    pieces: tuple[tuple[str, int], ...] = (),
    **options: Any,
) -> EncodeItem:
    return EncodeItem(
        item=key(index),
        modality=modality,
        url=None,
        text_before="",
        form=form,
        pieces=pieces,
        options=MediaOptions(**options),
    )


def media_of(bench: Bench, what: EncodeItem, data: bytes) -> Media:
    """What the processor gets of it."""
    bench.encoder.submit(what, data)
    event = bench.event()
    assert isinstance(event, ItemPrepared), event
    assert bench.encoder.prepared(event)
    assert bench.run() == [ItemEncoded(what.item, event.prepared.layout.num_rows)]
    return bench.towers.media[-1]


def error_of(bench: Bench, what: EncodeItem, data: bytes) -> EpdError:
    bench.encoder.submit(what, data)
    event = bench.event()
    assert isinstance(event, ItemBroken)
    return event.error


def frames_job(count: int, **options: Any) -> tuple[EncodeItem, bytes]:
    pieces = [picture_file(8, 6, shade=i) for i in range(count)]
    sizes = tuple((str(number), len(piece)) for number, piece in enumerate(pieces))
    what = job(Modality.VIDEO, form=ItemForm.FRAMES, pieces=sizes, **options)
    return what, b"".join(pieces)


# ---- files


def test_a_video_file_becomes_the_frames_that_the_model_chooses(benches: list[Bench]) -> None:
    clip = media_of(opened(benches), job(Modality.VIDEO), CLIP)
    assert isinstance(clip, Clip)
    assert clip.indices == (0, 10, 19, 29)
    assert [number_of(frame) for frame in clip.frames] == [0, 10, 19, 29]
    assert clip.sound is None


def test_an_audio_file_comes_at_the_models_rate(benches: list[Bench]) -> None:
    sound = media_of(opened(benches), job(Modality.AUDIO), SOUND)
    assert isinstance(sound, Sound)
    assert (sound.rate, len(sound.samples)) == (16_000, 8_000)


def test_a_time_series_keeps_its_own(benches: list[Bench]) -> None:
    series = media_of(opened(benches), job(Modality.TIME_SERIES), b"a,b\n1,2\n3,4\n")
    assert isinstance(series, Series)
    assert series.values.tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({"num_frames": 3}, 3),
        ({"num_frames": 30}, 6),
        ({"fps": 1.0}, 4),
        ({"fps": 1.0, "num_frames": 2}, 2),
    ],
)
def test_no_option_lifts_the_operators_ceiling(
    benches: list[Bench], options: dict[str, Any], count: int
) -> None:
    """And with both, num_frames is a ceiling of the client's own."""
    bench = opened(benches, video=VideoLimits(max_frames=6))
    clip = media_of(bench, job(Modality.VIDEO, **options), SILENT)
    assert isinstance(clip, Clip)
    assert len(clip.indices) == count
    assert (clip.indices[0], clip.indices[-1]) == (0, 29)


# ---- the sound of videos


def test_sound_comes_with_its_video_where_it_is_asked_for(benches: list[Bench]) -> None:
    bench = opened(benches)
    clip = media_of(bench, job(Modality.VIDEO, use_audio_in_video=True), CLIP)
    assert isinstance(clip, Clip) and clip.sound is not None
    assert clip.sound.rate == 16_000
    silent = media_of(bench, job(Modality.VIDEO, 1, use_audio_in_video=True), SILENT)
    assert isinstance(silent, Clip) and silent.sound is None


def test_a_model_that_takes_no_sound_of_videos_says_so(benches: list[Bench]) -> None:
    towers = Everything()
    towers.sound_in_video = False
    error = error_of(opened(benches, towers), job(Modality.VIDEO, use_audio_in_video=True), SILENT)
    assert (type(error), error.message) == (
        BadRequest,
        "video 0: use_audio_in_video: this model does not take the sound of videos",
    )


# ---- frames


def test_frames_are_a_video(benches: list[Bench]) -> None:
    clip = media_of(opened(benches), *frames_job(3, source_fps=2.0))
    assert isinstance(clip, Clip)
    assert (clip.indices, clip.info.fps) == ((0, 1, 2), 2.0)
    assert [int(frame[0, 0, 0]) for frame in clip.frames] == [0, 1, 2]


def test_a_bad_frame_is_named_within_its_item(benches: list[Bench]) -> None:
    what, data = frames_job(2)
    error = error_of(opened(benches), what, data[:-20] + bytes(20))
    assert type(error) is BadMedia
    assert error.message.startswith("video 0: frame 1: ")


def test_pieces_that_do_not_make_up_the_bytes_are_our_fault(benches: list[Bench]) -> None:
    what, data = frames_job(2)
    assert error_of(opened(benches), what, data + b"x").status == 500


def test_only_videos_come_as_frames(benches: list[Bench]) -> None:
    what = job(Modality.IMAGE, form=ItemForm.FRAMES, pieces=(("0", 3),))
    assert error_of(opened(benches), what, b"abc").status == 400


# ---- embeddings


def test_embeddings_are_read_and_not_decoded(benches: list[Bench]) -> None:
    bench = opened(benches)
    what = job(Modality.IMAGE, form=ItemForm.EMBEDS, pieces=(("image_embeds", len(EMBEDS)),))
    bench.encoder.submit(what, EMBEDS)
    event = bench.event()
    assert isinstance(event, ItemPrepared)
    assert event.prepared.layout.num_rows == 5
    assert bench.towers.media == []


def test_embeddings_that_are_none_are_the_clients_fault(benches: list[Bench]) -> None:
    what = job(Modality.IMAGE, form=ItemForm.EMBEDS, pieces=(("image_embeds", 4),))
    error = error_of(opened(benches), what, b"\x80\x04N.")
    assert error.status == 400
    assert error.message.startswith("image 0: ")


# ---- limits


def test_an_item_of_too_many_tokens_is_refused_before_its_tower(benches: list[Bench]) -> None:
    bench = opened(benches, image=ImageLimits(max_tokens=4))
    error = error_of(bench, job(Modality.IMAGE), picture(5))
    assert (type(error), error.message) == (
        BadMedia,
        "image 0: becomes 5 tokens, more than the limit of 4",
    )
    media_of(bench, job(Modality.IMAGE, 1), picture(4))


def test_what_one_request_fetches_is_limited_together(benches: list[Bench], site: Site) -> None:
    """The same item again counts once."""
    files = [picture(20, shade=shade) for shade in range(3)]
    site.pages |= {f"/{n}": body(file) for n, file in enumerate(files)}
    bench = opened(benches, request_bytes=2 * len(files[0]) + 20)
    for index, attempt in ((0, 0), (1, 0), (1, 1)):
        bench.submit(key(index, attempt), url=f"{site.url}/{index}")
        assert isinstance(bench.event(), ItemPrepared)
    error = bench.broken(key(2), url=f"{site.url}/2")
    assert type(error) is TooLarge
    assert error.message.startswith("image 2: the files of this request are larger than")


def test_files_that_wait_are_limited_together(benches: list[Bench]) -> None:
    data = picture(20)
    benches.append(Bench(queued_bytes=2 * len(data), intake_threads=1))
    (bench,) = benches
    bench.hold_intake()
    bench.submit(key(0), data)
    bench.submit(key(1), data)
    assert bench.broken(key(2), data).status == 429
    bench.release_intake()


# ---- content keys


def keys_of(bench: Bench, *jobs: tuple[EncodeItem, bytes]) -> list[bytes]:
    found = []
    for number, (what, data) in enumerate(jobs):
        values = {name: getattr(what, name) for name in what.__slots__}
        bench.encoder.submit(EncodeItem(**{**values, "item": key(number)}), data)
        event = bench.event()
        assert isinstance(event, ItemPrepared)
        found.append(event.prepared.layout.content_key)
    return found


def test_everything_that_shapes_an_item_is_in_its_key(benches: list[Bench]) -> None:
    """The same bytes, each time meant differently."""
    jobs = [
        (job(Modality.VIDEO, **options), SILENT)
        for options in (
            {},
            {"num_frames": 4},
            {"fps": 2.0},
            {"use_audio_in_video": True},
            {"siblings": 2},
            {"processor": '{"size":1}'},
        )
    ]
    jobs += [(job(Modality.AUDIO), SOUND), (job(Modality.TIME_SERIES), SOUND)]
    found = keys_of(opened(benches), *jobs)
    assert len(set(found)) == len(jobs)


def test_where_one_piece_ends_and_the_next_begins_is_in_the_key(benches: list[Bench]) -> None:
    one = picture_file(8, 6)
    twice = one + one
    whole = job(Modality.VIDEO, form=ItemForm.FRAMES, pieces=(("0", len(twice)),))
    parts = job(Modality.VIDEO, form=ItemForm.FRAMES, pieces=(("0", len(one)), ("1", len(one))))
    found = keys_of(opened(benches), (whole, twice), (parts, twice))
    assert found[0] != found[1]


def test_equal_bytes_with_equal_meaning_have_equal_keys(benches: list[Bench]) -> None:
    found = keys_of(
        opened(benches),
        (job(Modality.VIDEO, fps=2.0), SILENT),
        (job(Modality.VIDEO, fps=2.0), SILENT),
    )
    assert found[0] == found[1]


def test_the_ceiling_on_frames_is_in_the_key_of_a_video(benches: list[Bench]) -> None:
    """Under another one other frames are taken."""
    found = [
        keys_of(opened(benches, video=VideoLimits(max_frames=most)), (job(Modality.VIDEO), SILENT))
        for most in (3, 2)
    ]
    assert found[0] != found[1]
