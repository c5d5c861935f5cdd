"""The encoder as its worker drives it: real threads, real pictures, towers without weights."""

from __future__ import annotations

import threading

import pytest
import torch

from epd.config import EncodeConfig, MediaConfig
from epd.config.media import ImageLimits
from epd.encoder import Encoder, ItemBroken, ItemEncoded, ItemPrepared
from epd.errors import (
    BadMedia,
    BadRequest,
    EpdError,
    InternalError,
    Overloaded,
    TooLarge,
)
from epd.types import Modality
from epd.wire.messages import EncodeItem
from tests.encoder.bench import Bench, key, picture
from tests.encoder.towers import ROW_BYTES, WIDTH
from tests.media.site import Site, body


def test_a_picture_becomes_rows(bench: Bench) -> None:
    """Layout first, rows after the step, in memory of their own."""
    event = bench.prepare(key(0), picture(3, shade=5))
    assert event.prepared.layout.num_rows == 3
    assert bench.encoder.rows(key(0)) is None
    assert bench.run() == [ItemEncoded(key(0), 3)]
    rows = bench.encoder.rows(key(0))
    assert rows is not None
    assert torch.equal(rows, torch.full((3, WIDTH), 5.0))
    assert not bench.encoder.has_work


def test_items_of_one_step_share_a_forward_but_no_memory(bench: Bench) -> None:
    """Evicting one must free it whatever its neighbours do."""
    for index in range(3):
        bench.prepare(key(index), picture(2 + index, shade=index))
    assert bench.run() == [ItemEncoded(key(i), 2 + i) for i in range(3)]
    assert bench.towers.batches == [[4, 6, 8]]
    for index in range(3):
        rows = bench.encoder.rows(key(index))
        assert rows is not None
        assert rows.untyped_storage().nbytes() == rows.nbytes == (2 + index) * ROW_BYTES
        assert torch.equal(rows, torch.full((2 + index, WIDTH), float(index)))


def test_a_url_is_fetched_here(benches: list[Bench], site: Site) -> None:
    """And its content key is that of the same bytes sent inline."""
    benches.append(Bench(media=MediaConfig(allow_private_addresses=True)))
    site.pages["/p.png"] = body(picture(3))
    benches[0].submit(key(0), url=f"{site.url}/p.png")
    fetched = benches[0].event()
    inline = benches[0].prepare(key(1), picture(3))
    assert isinstance(fetched, ItemPrepared)
    assert fetched.prepared.layout.content_key == inline.prepared.layout.content_key


def test_content_keys_differ_by_settings(benches: list[Bench], bench: Bench) -> None:
    """The same bytes mean other rows under another processor."""
    other = Bench()
    other.encoder.close()
    other.encoder = Encoder(
        other.towers, EncodeConfig(), MediaConfig(), "other settings", other.inbox.put
    )
    benches.append(other)
    keys = {b.prepare(key(0), picture(3)).prepared.layout.content_key for b in (bench, other)}
    assert len(keys) == 2


@pytest.mark.parametrize(
    ("data", "error", "text"),
    [
        (b"", BadMedia, "image 2: 0 bytes"),
        (b"text", BadMedia, "image 2: not a readable PNG, JPEG, WEBP, GIF or BMP file"),
        (picture(1, 1), BadMedia, "image 2: 1x1 pixels are too few"),
        (b"x" * 2000, TooLarge, "image 2: file larger than 1000 bytes"),
    ],
)
def test_a_bad_item_is_named_with_its_reason(
    benches: list[Bench], data: bytes, error: type[EpdError], text: str
) -> None:
    """The index is the client's, from 0; the status that of the reason."""
    benches.append(Bench(media=MediaConfig(image=ImageLimits(max_bytes=1000))))
    found = benches[0].broken(key(2), data)
    assert type(found) is error
    assert found.message == text
    assert benches[0].encoder.gauges()["queued_items"] == 0


def test_an_unreachable_url_is_named_with_its_reason(bench: Bench, site: Site) -> None:
    """Private addresses are refused by default."""
    found = bench.broken(key(1), url=site.url)
    assert (found.status, found.message) == (422, "image 1: address not allowed")


def test_a_modality_that_is_not_served_is_the_clients_error(bench: Bench) -> None:
    """Not an internal one."""
    job = EncodeItem(item=key(3), modality=Modality.TIME_SERIES, url=None, text_before="")
    bench.encoder.submit(job, b"x")
    event = bench.event()
    assert isinstance(event, ItemBroken)
    assert event.error.status == 400
    assert event.error.message.startswith("time series 3: ")


def test_an_unexpected_error_names_the_stage_and_is_logged_whole(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """The client learns where, the operator learns what."""
    bench.towers.prepare_error = ZeroDivisionError("secret detail")
    found = bench.broken(key(0), picture(2))
    assert type(found) is InternalError
    assert found.message == "image 0: internal error in preprocess"
    assert "secret detail" in caplog.text


def test_a_job_without_bytes_and_url_is_our_fault(bench: Bench) -> None:
    """It still gets its answer."""
    assert bench.broken(key(0), None).status == 500


def test_a_bad_batch_is_retried_one_by_one(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """One item at fault fails alone, and in the order of arrival."""
    bench.towers.poison = 1.0
    for index in range(3):
        bench.prepare(key(index), picture(2, shade=index))
    good, bad, last = bench.run()
    assert (good, last) == (ItemEncoded(key(0), 2), ItemEncoded(key(2), 2))
    assert isinstance(bad, ItemBroken)
    assert bad.item == key(1)
    assert bad.error.message == "image 1: internal error in encode"
    assert "secret detail" in caplog.text
    assert bench.towers.batches == [[4, 4, 4], [4], [4], [4]]
    assert bench.encoder.gauges()["queued_items"] == 0


def test_out_of_memory_halves_once(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """Halves that fit are encoded; a half that does not fit fails."""
    bench.towers.memory = 20
    for index, width in enumerate((5, 5, 5, 15)):
        bench.prepare(key(index), picture(width, shade=index))
    results = bench.run()
    assert bench.towers.batches == [[10, 10, 10, 30], [10, 10], [10, 30]]
    assert [type(result) for result in results] == [ItemEncoded] * 2 + [ItemBroken] * 2
    broken = results[2]
    assert isinstance(broken, ItemBroken)
    assert broken.error.message == "image 2: out of device memory in encode"
    assert "out of memory" in caplog.text


def test_out_of_memory_with_a_single_item_fails_it(bench: Bench) -> None:
    """There is nothing to halve."""
    bench.towers.memory = 1
    bench.prepare(key(0), picture(2))
    (result,) = bench.run()
    assert isinstance(result, ItemBroken)
    assert len(bench.towers.batches) == 1


def test_a_broken_device_is_not_survived(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sticky error would fail every later item too; the process must end."""

    def broken(batch: object) -> list[torch.Tensor]:
        raise torch.AcceleratorError("illegal memory access", 700)

    monkeypatch.setattr(bench.towers, "encode", broken)
    bench.prepare(key(0), picture(2))
    with pytest.raises(torch.AcceleratorError):
        bench.encoder.step()


def test_rows_that_differ_from_the_layout_never_leave(bench: Bench) -> None:
    """A wrong tower must not become wrong tokens."""
    bench.towers.lie = True
    bench.prepare(key(0), picture(2))
    (result,) = bench.run()
    assert isinstance(result, ItemBroken)
    assert "where the layout promised" in result.error.message
    assert bench.encoder.rows(key(0)) is None


def test_a_full_queue_refuses_until_something_leaves(benches: list[Bench]) -> None:
    """Counted from submission to rows."""
    bench = Bench(max_queued_items=2)
    benches.append(bench)
    bench.prepare(key(0), picture(2))
    bench.prepare(key(1), picture(2))
    found = bench.broken(key(2), picture(2))
    assert type(found) is Overloaded
    assert found.message == "image 2: 2 items are queued for encoding"
    assert found.retry_after_s == 1.0, "nothing was measured yet"
    bench.run()
    bench.prepare(key(2), picture(2))


def test_a_refusal_says_when_there_may_be_room(benches: list[Bench]) -> None:
    """What is queued takes as long as what was done took."""
    bench = Bench(max_queued_items=1)
    benches.append(bench)
    bench.prepare(key(0), picture(2), cost=1000)
    assert bench.encoder.gauges()["queued_cost"] == 1000
    bench.run()
    assert bench.encoder.gauges()["work_cost"] == 1000
    bench.prepare(key(1), picture(3), cost=10_000_000)
    found = bench.broken(key(2), picture(4))
    assert found.retry_after_s is not None and found.retry_after_s > 1.0


def test_equal_items_are_one_piece_of_work(bench: Bench) -> None:
    """They share a way, or the rows are there."""
    for index in range(2):
        bench.prepare(key(index), picture(2), cost=1000)
    assert bench.encoder.gauges()["queued_cost"] == 1000
    bench.run()
    bench.prepare(key(2), picture(2), cost=1000)
    bench.run()
    gauges = bench.encoder.gauges()
    assert (gauges["queued_cost"], gauges["work_cost"]) == (0, 1000)


def test_a_repeated_job_is_ignored(bench: Bench) -> None:
    """While it is on its way and when its rows are here."""
    bench.prepare(key(0), picture(2))
    bench.submit(key(0), picture(2))
    bench.run()
    bench.submit(key(0), picture(2))
    bench.prepare(key(1), picture(2))  # its event is the next one: the repeats made none
    assert bench.run() == [ItemEncoded(key(1), 2)]


def test_a_drop_while_preprocessing_discards_the_result(bench: Bench) -> None:
    """The thread is inside the processor when the client leaves."""
    bench.towers.gate = threading.Event()
    bench.submit(key(0), picture(2))
    assert bench.towers.entered.wait(30)
    bench.encoder.drop(key(0))
    bench.towers.gate.set()
    bench.prepare(key(1), picture(2))  # no event came before this one
    assert bench.run() == [ItemEncoded(key(1), 2)]
    assert bench.encoder.rows(key(0)) is None
    assert bench.encoder.gauges()["queued_items"] == 0


@pytest.mark.parametrize("overlap", [True, False])
def test_a_tower_runs_while_the_next_item_is_preprocessed_if_it_may(
    benches: list[Bench], *, overlap: bool
) -> None:
    """The second item is inside the processor; without overlap the towers wait for it."""
    bench = Bench(overlap=overlap)
    benches.append(bench)
    bench.prepare(key(0), picture(2))
    bench.hold_intake()
    bench.towers.entered.clear()
    bench.submit(key(1), picture(3))
    assert bench.towers.entered.wait(30)
    step = threading.Thread(target=bench.run)
    step.start()
    if overlap:
        step.join(30)
    assert bool(bench.towers.batches) is overlap
    bench.release_intake()
    step.join(30)
    assert bench.towers.batches == [[4]]


def test_a_drop_before_the_thread_begins_spares_the_work(bench: Bench) -> None:
    """With one thread busy, the second job waits; dropped, it is never preprocessed."""
    bench.towers.gate = threading.Event()
    bench.submit(key(0), picture(2))
    assert bench.towers.entered.wait(30)
    bench.submit(key(1), b"not even a picture")
    bench.encoder.drop(key(0))
    bench.encoder.drop(key(1))
    bench.towers.gate.set()
    bench.prepare(key(2), picture(2))
    assert bench.encoder.gauges()["queued_items"] == 1


def test_a_drop_between_event_and_queue_discards_the_item(bench: Bench) -> None:
    """The event lies in the inbox when the drop is handled."""
    bench.submit(key(0), picture(2))
    event = bench.event()
    bench.encoder.drop(key(0))
    assert isinstance(event, ItemPrepared)
    assert not bench.encoder.prepared(event)
    assert not bench.encoder.has_work


def test_a_drop_in_the_queue_leaves_the_others(bench: Bench) -> None:
    """Also when the item waits for its second try."""
    bench.towers.poison = 0.0
    for index in range(3):
        bench.prepare(key(index), picture(2, shade=index))
    assert bench.encoder.step() == []  # failed together, waiting one by one
    bench.encoder.drop(key(1))
    results = bench.run()
    assert [result.item for result in results] == [key(0), key(2)]


def test_a_drop_frees_rows_and_refuses_the_key_afterwards(bench: Bench) -> None:
    """Late messages of a dropped item start nothing, pins included."""
    bench.prepare(key(0), picture(2), wanted=True)
    bench.run()
    bench.encoder.drop(key(0))
    bench.encoder.drop(key(0))
    assert bench.encoder.rows(key(0)) is None
    assert not bench.encoder.pin(key(0))
    bench.submit(key(0), picture(2))
    assert not any(bench.held().values())


def test_unpinned_rows_make_room_and_pinned_ones_stay(benches: list[Bench]) -> None:
    """A wanted item is pinned on arrival, another when its pull comes."""
    bench = Bench(rows_bytes=6 * ROW_BYTES)
    benches.append(bench)
    bench.prepare(key(0), picture(2), wanted=True)
    bench.prepare(key(1), picture(2))
    assert bench.encoder.pin(key(1))
    bench.prepare(key(2), picture(2))
    bench.prepare(key(3), picture(2))
    bench.run()
    kept = [bench.encoder.rows(key(index)) is not None for index in range(4)]
    assert kept == [True, True, False, True]
    assert bench.held() == {
        "rows_bytes": 6 * ROW_BYTES,
        "pinned_items": 2,
        "queued_items": 0,
        "held_items": 0,
        "prepared_bytes": 0,
        "followers": 0,
        "early_items": 0,
        "queued_cost": 0,
    }
    assert bench.encoder.unpin(key(0))
    assert bench.encoder.rows(key(0)) is not None


def test_an_item_that_can_never_be_kept_is_refused_before_its_tower(
    benches: list[Bench],
) -> None:
    """With both sizes, and nothing held."""
    bench = Bench(rows_bytes=4 * ROW_BYTES)
    benches.append(bench)
    found = bench.broken(key(0), picture(5), wanted=True)
    assert type(found) is BadRequest
    assert found.message == "image 0: its rows take 80 bytes, and this worker keeps 64"
    assert not bench.encoder.has_work
    assert bench.encoder.gauges()["pinned_items"] == 0


def test_close_does_not_wait_for_a_hanging_item_and_silences_it(bench: Bench) -> None:
    """The thread is left behind; whatever it finds has no reader any more."""
    bench.towers.gate = threading.Event()
    bench.submit(key(0), picture(2))
    assert bench.towers.entered.wait(30)
    bench.encoder.close()
    bench.towers.gate.set()
    for thread in threading.enumerate():
        if thread.name.startswith("intake-"):
            thread.join(30)
    assert bench.inbox.empty()


def test_many_threads_lose_nothing(benches: list[Bench]) -> None:
    """Every item ends exactly once, whatever the order."""
    bench = Bench(intake_threads=8)
    benches.append(bench)
    for index in range(60):
        bench.submit(key(index), picture(2) if index % 3 else b"bad")
    events = [bench.event() for _ in range(60)]
    prepared = [event for event in events if isinstance(event, ItemPrepared)]
    broken = [event for event in events if isinstance(event, ItemBroken)]
    assert sorted(event.item.index for event in broken) == list(range(0, 60, 3))
    assert all(bench.encoder.prepared(event) for event in prepared)
    assert {result.item for result in bench.run()} == {event.item for event in prepared}
    assert bench.inbox.empty()


# ---- items whose KV may be cached


def test_a_held_item_has_its_layout_and_waits_for_its_tower(bench: Bench) -> None:
    """Asked for, it is encoded like any other."""
    event = bench.prepare(key(0), picture(3), hold=True)
    assert event.prepared.layout.num_rows == 3
    assert not bench.encoder.has_work
    assert bench.encoder.gauges()["held_items"] == 1
    bench.encoder.run(key(0))
    assert bench.run() == [ItemEncoded(key(0), 3)]
    assert bench.encoder.gauges()["prepared_bytes"] == 0


def test_a_held_item_is_dropped_without_a_forward(bench: Bench) -> None:
    """Its KV was cached: neither encoded nor sent."""
    bench.prepare(key(0), picture(3), hold=True)
    bench.encoder.drop(key(0))
    bench.encoder.run(key(0))
    assert bench.run() == []
    assert bench.towers.batches == []
    assert set(bench.held().values()) == {0}


def test_asking_for_an_item_that_is_not_held_changes_nothing(bench: Bench) -> None:
    """The first pull of any item asks."""
    bench.prepare(key(0), picture(3))
    bench.encoder.run(key(0))
    bench.encoder.run(key(1))
    assert bench.run() == [ItemEncoded(key(0), 3)]


def test_nothing_is_prepared_while_pixels_fill_their_memory(benches: list[Bench]) -> None:
    """The picture that waits is prepared when a forward has made room, held ones or not."""
    bench = Bench(prepared_bytes=10)
    benches.append(bench)
    bench.prepare(key(0), picture(3), hold=True)
    bench.prepare(key(1), picture(3, shade=1))  # 6 bytes each: full
    bench.submit(key(2), picture(4))
    bench.submit(key(3), picture(2), hold=True)
    bench.encoder.drop(key(3))
    assert bench.run() == [ItemEncoded(key(1), 3)]
    event = bench.event()
    assert isinstance(event, ItemPrepared) and event.item == key(2)
    assert bench.encoder.prepared(event)
    assert bench.run() == [ItemEncoded(key(2), 4)]
    assert bench.encoder.gauges()["held_items"] == 1


def test_an_item_dropped_while_it_waits_for_room_is_not_prepared(benches: list[Bench]) -> None:
    """Its thread is free for others, and closing does not wait for it."""
    bench = Bench(prepared_bytes=6, intake_threads=1)
    benches.append(bench)
    bench.prepare(key(0), picture(3))
    bench.submit(key(1), picture(2))
    bench.encoder.drop(key(1))
    bench.submit(key(2), b"no picture")
    bench.run()
    event = bench.event()
    assert isinstance(event, ItemBroken) and event.item == key(2)
