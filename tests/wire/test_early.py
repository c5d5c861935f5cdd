"""Mail from senders that are not known yet: kept in order, within bounds."""

from __future__ import annotations

from epd.wire.early import MAX_BYTES, MAX_MESSAGES, Early
from epd.wire.links import Delivery


def mail(sender: str, number: int = 0) -> Delivery:
    return Delivery(sender=sender, incarnation="i", message=number, frame=None)


def test_only_a_known_senders_mail_is_released_in_order() -> None:
    early = Early(5.0)
    for number in range(3):
        assert early.keep(mail("a", number), num_bytes=10, now=0.0)
        assert early.keep(mail("b", number), num_bytes=10, now=0.0)
    assert early.release(lambda name, _: name == "a") == [mail("a", n) for n in range(3)]
    assert early.release(lambda name, _: name == "a") == []
    assert len(early) == 3


def test_what_waits_too_long_expires_once() -> None:
    early = Early(5.0)
    early.keep(mail("a"), num_bytes=10, now=0.0)
    early.keep(mail("b"), num_bytes=10, now=1.0)
    assert early.next_expiry() == 5.0
    assert early.expire(4.9) == []
    assert early.expire(5.0) == [mail("a")]
    assert early.expire(7.0) == [mail("b")]
    assert early.next_expiry() is None


def test_it_is_bounded_in_count_and_in_bytes() -> None:
    early = Early(5.0)
    assert all(early.keep(mail("a", n), num_bytes=1, now=0.0) for n in range(MAX_MESSAGES))
    assert not early.keep(mail("a"), num_bytes=1, now=0.0)
    early.release(lambda *_: True)
    assert early.keep(mail("a"), num_bytes=MAX_BYTES, now=0.0)
    assert not early.keep(mail("b"), num_bytes=1, now=0.0)


def test_without_grace_nothing_is_kept() -> None:
    assert not Early(0.0).keep(mail("a"), num_bytes=1, now=0.0)
