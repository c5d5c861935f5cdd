"""The gateway's decisions about items: lost, found, moved, broken."""

from __future__ import annotations

from dataclasses import replace

from epd.cluster import ItemJob, Tell
from epd.cluster.costs import cost
from epd.types import ItemForm, ItemKey, MediaOptions, Member, Modality, RequestKey
from epd.wire import messages as m
from tests.cluster.owning import Gateway, R, error, receivers, split, told
from tests.cluster.samples import encode, layout, prefill


def encoding(*more: Member) -> Gateway:
    """A request with one item is running; its prefill is P."""
    gateway = split(*more)
    gateway.submit(items=1)
    gateway.laid_out()
    gateway.reserved()
    gateway.admitted()
    return gateway


def test_a_lost_item_is_encoded_again_and_moves() -> None:
    """Dropped where it was, so that nothing is left there; prefill waits, so it is wanted."""
    gateway = encoding(encode("E2"))
    again = gateway.lost()
    assert again[0] == Tell("E", m.DropItem(item=ItemKey("r", 0, 1)))
    ((to, job),) = told(again, m.EncodeItem)
    assert (to, job.item, job.wanted) == ("E2", ItemKey("r", 0, 2), True)
    moved = m.ItemMoved(request=R, item=ItemKey("r", 0, 2), encoder="E2")
    assert gateway.laid_out("E2", attempt=2) == [Tell("P", moved)]


def test_a_lost_item_leaves_its_encoder_for_a_busier_one() -> None:
    """Which may be behind a cut link. Where there is no other, it gets it again."""
    gateway = encoding(encode("E2"))
    clip = ItemJob(modality=Modality.VIDEO, url="u", text_before="")
    gateway.owner._placement.encoders.sent(encode("E2"), ItemKey("other", 0, 1), clip, "")
    ((to, _),) = told(gateway.lost(), m.EncodeItem)
    assert to == "E2"
    ((to, _),) = told(encoding().lost(), m.EncodeItem)
    assert to == "E"


def test_an_item_that_comes_back_different_fails_the_request_and_is_named() -> None:
    """Its URL gives other bytes now: half of each would be nonsense."""
    gateway = encoding()
    gateway.lost()
    ended = gateway.laid_out(attempt=2, found=layout(content=b"other"))
    assert error(ended).status == 500
    assert "image 0: came back different" in error(ended).message
    assert gateway.owner.idle


def test_a_repeated_loss_is_heard_once() -> None:
    """While it is encoded again, and after it moved."""
    gateway = encoding()
    assert gateway.lost()
    assert gateway.lost() == []
    assert gateway.lost(attempt=2) == []
    gateway.laid_out(attempt=2)
    assert gateway.lost() == []


def test_only_the_prefill_worker_of_the_request_can_lose_its_items() -> None:
    """One that had an earlier attempt knows nothing of this one's."""
    gateway = encoding(prefill("P2"))
    assert gateway.lost("P2") == []
    gateway.owner.cancel("r")
    assert gateway.lost("P") == []


def test_a_loss_between_two_attempts_waits_for_the_next() -> None:
    """The next prefill worker will pull, and lose it, itself."""
    gateway = encoding()
    gateway.failed("D", 429)
    gateway.refused("D", RequestKey("r", 2))
    assert gateway.lost() == []


def test_the_encoder_of_a_second_attempt_may_die() -> None:
    """Prefill never heard of attempt 2; it gets attempt 3."""
    gateway = encoding(encode("E2"), encode("E3"))
    gateway.lost()
    ((to, job),) = told(gateway.dies("E2"), m.EncodeItem)
    assert (to, job.item.attempt) == ("E3", 3)
    moved = m.ItemMoved(request=R, item=ItemKey("r", 0, 3), encoder="E3")
    assert gateway.laid_out("E3", attempt=3) == [Tell("P", moved)]


def test_a_request_admitted_while_its_item_is_encoded_again_has_nobody_to_ask() -> None:
    """The encoder may not have the job yet, and would say "not here"."""
    gateway = encoding()
    gateway.failed("D", 429)
    gateway.owner.rows_lost("P", m.RowsLost(request=R, item=ItemKey("r", 0, 1), reason="evicted"))
    again = RequestKey("r", 2)
    (_, admit), *_ = told(gateway.reserved(request=again), m.Admit)
    assert [(i.item.attempt, i.encoder) for i in admit.prompt.items] == [(2, "")]
    moved = m.ItemMoved(request=again, item=ItemKey("r", 0, 2), encoder="E")
    assert gateway.laid_out(attempt=2) == [Tell("P", moved)]


def test_an_item_found_between_two_attempts_moves_nowhere() -> None:
    """The next attempt's prompt names its home."""
    gateway = encoding()
    gateway.lost()
    gateway.failed("D", 429)
    gateway.refused("D", RequestKey("r", 2))
    assert gateway.laid_out(attempt=2) == []


def test_an_encoders_death_moves_the_jobs_it_had() -> None:
    """Those without a layout; of the others prefill tells what it still needs."""
    gateway = split(encode("E2"))
    gateway.submit(items=2)
    gateway.laid_out()
    jobs = told(gateway.dies("E2"), m.EncodeItem)
    assert [(to, job.item) for to, job in jobs] == [("E", ItemKey("r", 1, 2))]
    assert not jobs[0][1].wanted
    assert gateway.dies("E")[-1:] != []
    assert gateway.owner.idle


def test_an_item_that_is_lost_more_than_three_times_fails_with_503() -> None:
    """It is named, and so is the last reason."""
    gateway = encoding()
    for attempt in range(1, 4):
        assert told(gateway.lost(attempt=attempt), m.EncodeItem)
        gateway.laid_out(attempt=attempt + 1)
    ended = gateway.lost(attempt=4)
    assert error(ended).status == 503
    assert "0" in error(ended).message and "evicted" in error(ended).message


def test_rows_evicted_between_attempts_are_no_deaths() -> None:
    """Each preempted attempt may find its rows evicted, any number of times."""
    gateway = encoding()
    for attempt in range(1, 8):
        key, again = RequestKey("r", attempt), RequestKey("r", attempt + 1)
        assert told(gateway.lost(attempt=attempt, request=key), m.EncodeItem)
        gateway.laid_out(attempt=attempt + 1)
        gateway.failed("D", 429, key)
        gateway.reserved(request=again)
        gateway.admitted(request=again)


def test_an_item_that_cannot_be_encoded_fails_its_request() -> None:
    """With the encoder's status and words."""
    gateway = split()
    gateway.submit(items=2)
    broken = m.ItemFailed(item=ItemKey("r", 1, 1), status=422, code="invalid_media", reason="bad")
    assert gateway.owner.item_failed("stranger", broken) == []
    ended = gateway.owner.item_failed("E", broken)
    assert (error(ended).status, error(ended).message) == (422, "bad")
    assert receivers(ended, m.DropItem) == ["E", "E"]
    assert gateway.owner.item_failed("E", broken) == []


# ---- what an item is, and who can take it

SOUNDING = ItemJob(
    modality=Modality.VIDEO,
    url=None,
    text_before="look: ",
    form=ItemForm.FILE,
    pieces=(("file", 3),),
    options=MediaOptions(use_audio_in_video=True, fps=2.0),
)


def test_a_job_says_what_was_asked_of_the_item_and_for_whom() -> None:
    gateway = split(encode("EV", modalities=(Modality.VIDEO, Modality.AUDIO)))
    ((to, job),) = told(gateway.submit(items=1, job=SOUNDING, salt="tenant"), m.EncodeItem)
    assert to == "EV"
    assert job == m.EncodeItem(
        item=ItemKey("r", 0, 1),
        modality=Modality.VIDEO,
        url=None,
        text_before="look: ",
        form=ItemForm.FILE,
        pieces=(("file", 3),),
        options=MediaOptions(use_audio_in_video=True, fps=2.0),
        salt="tenant",
        cost=cost(SOUNDING),
    )


def test_embeddings_need_nothing_but_their_modality() -> None:
    """And say what they are."""
    embeds = replace(SOUNDING, form=ItemForm.EMBEDS, options=MediaOptions())
    gateway = split(encode("EV", modalities=(Modality.VIDEO,)))
    assert receivers(gateway.submit(items=1, job=embeds), m.EncodeItem) == ["EV"]


def test_a_modality_that_nobody_serves_is_a_503_that_says_so() -> None:
    """Nothing is dispatched: of the picture beside it neither."""
    gateway = split(encode("EV", modalities=(Modality.VIDEO,)))
    ended = gateway.submit(items=1, job=SOUNDING)
    assert error(ended).status == 503
    assert "no encode worker serves video together with audio" in error(ended).message
    assert told(ended, m.EncodeItem) == [] and gateway.owner.idle


def test_an_item_is_encoded_again_only_where_all_it_needs_is_served() -> None:
    """Its encoder died; the others serve half of it each."""
    both = encode("EB", modalities=(Modality.VIDEO, Modality.AUDIO))
    gateway = split(both, encode("EV", modalities=(Modality.VIDEO,)))
    gateway.submit(items=1, job=SOUNDING)
    gateway.joins(encode("EA", modalities=(Modality.AUDIO,)))
    ended = gateway.dies("EB")
    assert error(ended).status == 503
    assert "video together with audio" in error(ended).message


# ---- text that an item replaces


def test_an_item_cannot_replace_more_text_than_stands_before_it() -> None:
    """Not even where other text stands further left: it would be somebody else's."""
    gateway = split()
    gateway.submit(items=2, text=4)
    assert told(gateway.laid_out(found=layout(replaces_left=4)), m.Cancel) == []
    ended = gateway.laid_out(index=1, found=layout(replaces_left=1))
    assert error(ended).status == 500
    assert "image 1: E replaces more text" in error(ended).message
    assert gateway.owner.idle
