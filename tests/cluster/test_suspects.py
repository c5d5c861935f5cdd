"""A request that kills whoever runs it fails alone, after two deaths; nobody else fails for it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from epd.cluster.instructions import Failed, Instruction
from epd.types import FinishReason, ItemKey, RequestKey
from epd.wire import messages as m
from tests.cluster.owning import Gateway, emitted, error, part, receivers, told
from tests.cluster.samples import encode, fused, run

STOP = FinishReason.STOP


def second(request_id: str) -> RequestKey:
    return RequestKey(request_id, 2)


def house(*names: str) -> Gateway:
    """Requests r, s and t run on F; these workers join after them."""
    gateway = Gateway(fused("F"))
    for request_id in "rst":
        gateway.submit(request_id)
        gateway.admitted("F", RequestKey(request_id, 1))
    for name in names:
        gateway.joins(fused(name))
    return gateway


def asked(instructions: Sequence[Instruction]) -> list[tuple[str, str]]:
    """Which worker is to run which request."""
    return [(to, admit.request.request_id) for to, admit in told(instructions, m.Admit)]


def failed(instructions: Sequence[Instruction]) -> list[str]:
    return [i.request_id for i in instructions if isinstance(i, Failed)]


def test_suspects_are_run_apart() -> None:
    """One per worker; the third waits until one of them is proven innocent."""
    gateway = house("F2", "F3")
    again = gateway.dies("F")
    assert failed(again) == []
    assert sorted(asked(again)) == [("F2", "r"), ("F3", "s")]
    gateway.admitted("F2", second("r"))
    assert asked(gateway.emits("F2", run(0, 10, request="r", attempt=2))) == [], "prefill's alone"
    assert asked(gateway.emits("F2", run(1, 11, request="r", attempt=2))) == [("F2", "t")]


def test_the_second_death_blames_the_one_suspect_that_was_there() -> None:
    """It fails with words that say so; the others go on, and are under no suspicion for it."""
    gateway = house("F2", "F3", "F4")
    gateway.submit("u")
    asked(gateway.dies("F"))
    (where,) = [name for name, request_id in placed(gateway) if request_id == "r"]
    gateway.admitted(where, second("r"))
    ended = gateway.dies(where)
    assert failed(ended) == ["r"]
    assert (error(ended).status, error(ended).message) == (
        500,
        f"two workers died with this request, last {where}",
    )
    assert gateway.owner.num_requests == 3


def placed(gateway: Gateway) -> list[tuple[str, str]]:
    """Where requests are now."""
    requests = gateway.owner._attempts.in_order
    return [(name, request.request_id) for request in requests for name in request.workers]


def test_who_was_beside_the_cause_is_not_blamed() -> None:
    """It had joined the suspect on its worker: it is run again like anybody, and not apart."""
    gateway = house("F2")
    gateway.dies("F")
    gateway.admitted("F2", second("r"))
    gateway.submit("u")
    gateway.admitted("F2", RequestKey("u", 1))
    assert asked(gateway.joins(fused("F3"))) == [("F3", "s")]
    ended = gateway.dies("F2")
    assert failed(ended) == ["r"]
    assert asked(ended) == [("F3", "u")], "t is a suspect, and so is s"


def test_a_suspect_keeps_newcomers_away_where_there_is_another_worker() -> None:
    """However long its prompt is kept there."""
    gateway = Gateway(fused("F"), fused("F2"))
    gateway.submit("r")
    gateway.admitted("F")
    gateway.dies("F")
    gateway.joins(fused("F3"))
    for request_id in ("u", "v"):
        assert asked(gateway.submit(request_id)) == [("F3", request_id)]


def test_who_kills_before_it_is_said_to_be_admitted_is_found_too() -> None:
    """The worker had it; its answer died with it."""
    gateway = Gateway(fused("F"), fused("F2"), fused("F3"))
    gateway.submit("r")
    [(first, _)] = placed(gateway)
    assert failed(gateway.dies(first)) == []
    [(second_one, _)] = placed(gateway)
    assert second_one != first
    assert failed(gateway.dies(second_one)) == ["r"]


def test_a_proven_request_starts_afresh() -> None:
    """Two workers died with it, but it had got on in between."""
    gateway = house("F2", "F3", "F4")
    gateway.dies("F")
    gateway.admitted("F2", second("r"))
    assert emitted(gateway.emits("F2", run(0, 10, 11, request="r", attempt=2))) == [10, 11]
    again = gateway.dies("F2")
    assert failed(again) == [] and gateway.owner.num_requests == 3


def test_a_request_that_waited_for_admission_is_no_suspect() -> None:
    """It cannot have been the cause: nothing of it has ever run."""
    gateway = Gateway(fused("F"))
    gateway.submit("r")
    gateway.admitted("F")
    for request_id in ("s", "t"):
        gateway.submit(request_id)
        gateway.refused("F", RequestKey(request_id, 1))
    gateway.joins(fused("F2"))
    gateway.joins(fused("F3"))
    gateway.dies("F")
    assert [r.request_id for r in gateway.owner._attempts.suspects._requests.values()] == ["r"]


def test_choices_of_one_request_are_no_strangers() -> None:
    """They are run together again, and fail together."""
    gateway = Gateway(fused("F"))
    gateway.submit(n=2)
    gateway.admitted("F")
    gateway.emits("F", run(0, 10), run(0, 20, choice=1))
    gateway.joins(fused("F2"))
    assert receivers(gateway.dies("F"), m.Admit) == ["F2", "F2"]
    gateway.admitted("F2", part(0))
    gateway.admitted("F2", part(1))
    ended = gateway.dies("F2")
    assert failed(ended) == ["r"] and gateway.owner.idle


def test_replacements_go_before_those_that_never_ran() -> None:
    """Though they are younger."""
    gateway = Gateway(fused("F"), fused("F2"))
    gateway.submit("r")
    gateway.submit("s")
    (old,) = [r for r in gateway.owner._attempts.in_order if r.request_id == "r"]
    gateway.refused(old.workers[0], RequestKey("r", 1))
    gateway.refused(old.workers[0], RequestKey("r", 2))
    (young,) = [r for r in gateway.owner._attempts.in_order if r.request_id == "s"]
    there = young.workers[0]
    gateway.admitted(there, RequestKey("s", 1))
    again = asked(gateway.dies(there))
    assert [request_id for _, request_id in again][0] == "s"


@pytest.mark.parametrize("kills", ["prefill", "decode"])
def test_a_request_that_kills_every_worker_costs_two(kills: str) -> None:
    """Among seven that do not: they all have their answers in the end."""
    gateway = Gateway(*(fused(f"F{k}") for k in range(4)))
    names = [f"r{k}" for k in range(8)]
    for name in names:
        gateway.submit(name)
    deaths = 0
    for _ in range(200):
        requests = gateway.owner._attempts.in_order
        if not requests:
            break
        for request in requests:
            if not request.workers or not gateway.owner._attempts.alive(request):
                continue
            (worker,) = request.workers
            key = request.key
            gateway.admitted(worker, key)
            poison = request.request_id == "r3"
            done = len(request.answer.streams[0].emitted)
            if poison and (kills == "prefill" or done > 0):
                deaths += 1
                gateway.dies(worker)
                gateway.joins(fused(f"N{deaths}"))
                continue
            last = done == 9
            token = run(
                done,
                done,
                request=request.request_id,
                attempt=key.attempt,
                finish=STOP if last else None,
            )
            gateway.emits(worker, token)
    assert gateway.owner.idle
    assert deaths == 2


def test_who_leaves_of_its_own_will_was_killed_by_nobody() -> None:
    """A rolling restart, however often: it counts as no death, and nobody is a suspect."""
    gateway = Gateway(fused("F0"), fused("F1"))
    gateway.submit()
    for k in range(9):
        key = RequestKey("r", k + 1)
        gateway.admitted(f"F{k}", key)
        gateway.joins(fused(f"F{k + 1}"))
        gateway.membership.leave(f"F{k}", "1")
        again = gateway.owner.worker_lost(f"F{k}", left=True)
        assert asked(again) == [(f"F{k + 1}", "r")]


# ---- items


def pictures(*encoders: str) -> Gateway:
    """E has one item of each of r, s and t; these encoders join after that."""
    gateway = Gateway(encode(), fused("F"))
    for request_id in "rst":
        gateway.submit(request_id, items=1)
    for name in encoders:
        gateway.joins(encode(name))
    return gateway


def encoding(instructions: Sequence[Instruction]) -> list[tuple[str, str]]:
    """Which encoder gets an item of which request."""
    return [(to, job.item.request_id) for to, job in told(instructions, m.EncodeItem)]


def done(gateway: Gateway, sender: str, request_id: str, attempt: int = 2) -> list[Instruction]:
    message = m.ItemDone(item=ItemKey(request_id, 0, attempt))
    return gateway.owner.item_done(sender, message)


def test_items_that_were_with_a_dead_encoder_are_encoded_apart() -> None:
    """One at each of the others; as soon as its rows are there, the next one goes."""
    gateway = pictures("E2", "E3")
    again = encoding(gateway.dies("E"))
    assert sorted(again) == [("E2", "r"), ("E3", "s")]
    assert encoding(done(gateway, "E2", "r")) == [("E2", "t")]


def test_an_item_that_kills_two_encoders_fails_its_request_alone() -> None:
    """With its name; who was sent beside it is encoded again."""
    gateway = pictures("E2")
    assert encoding(gateway.dies("E")) == [("E2", "r")]
    gateway.submit("u", items=1)
    gateway.joins(encode("E3"))
    ended = gateway.dies("E2")
    assert failed(ended) == ["r"]
    assert error(ended).message == "image 0: two encode workers died with it, last E2"
    assert ("E3", "u") in encoding(ended) or gateway.owner.num_requests == 3
    for _ in range(9):
        for request in gateway.owner._attempts.in_order:
            (item,) = request.items
            if item.encoder == "E3" and not item.done:
                gateway.laid_out("E3", request_id=request.request_id, attempt=item.key.attempt)
                done(gateway, "E3", request.request_id, item.key.attempt)
    assert all(r.items[0].done for r in gateway.owner._attempts.in_order)


def test_rows_that_were_made_put_an_item_beyond_suspicion() -> None:
    """Its encoder died later, of something else."""
    gateway = pictures("E2")
    done(gateway, "E", "r", attempt=1)
    gateway.dies("E")
    assert [r.items[0].suspect for r in gateway.owner._attempts.in_order] == [False, True, True]


def test_who_waits_for_an_encoder_can_leave() -> None:
    """Nothing is left of it, and the next one comes to its turn."""
    gateway = pictures("E2")
    gateway.dies("E")
    assert encoding(gateway.owner.cancel("s")) == []
    assert encoding(gateway.owner.cancel("r")) == [("E2", "t")]
    gateway.owner.cancel("t")
    assert gateway.owner.idle and gateway.placement.encoders.load("E2") == 0


def test_who_can_be_placed_nowhere_leaves_its_encoder_to_the_next() -> None:
    """The tower of the first was at work when the last language worker died."""
    gateway = pictures("E2")
    gateway.dies("E")
    gateway.laid_out("E2", attempt=2)
    ended = gateway.dies("F")
    assert failed(ended) == ["r"]
    assert encoding(ended) == [("E2", "s")]
    ended = gateway.laid_out("E2", request_id="s", attempt=2)
    assert failed(ended) == ["s"] and encoding(ended) == [("E2", "t")]
    assert failed(gateway.laid_out("E2", request_id="t", attempt=2)) == ["t"]
    assert gateway.owner.idle


def test_the_last_encoder_leaves_while_suspects_wait() -> None:
    """They fail as all would, with 503; when one joins, service goes on."""
    gateway = pictures("E2")
    gateway.dies("E")
    ended = gateway.dies("E2")
    assert sorted(failed(ended)) == ["r", "s", "t"]
    gateway.joins(encode("E3"))
    assert encoding(gateway.submit("u", items=1)) == [("E3", "u")]
