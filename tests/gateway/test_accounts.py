"""What a key may use: requests at once, and tokens per minute."""

from __future__ import annotations

from typing import Any

import pytest

from epd.config import ApiKey
from epd.errors import Overloaded
from epd.gateway.accounts import Account, Accounts, tenant_salt


def key(text: str = "k", **more: Any) -> ApiKey:
    return ApiKey.model_validate({"key": text, **more})


def wait_of(account: Account, now: float) -> float:
    """How long a refused request is told to wait."""
    with pytest.raises(Overloaded) as caught:
        account.enter(now)
    assert caught.value.code == "rate_limit_exceeded" and caught.value.status == 429
    assert caught.value.retry_after_s is not None
    return caught.value.retry_after_s


def test_a_key_without_limits_has_none() -> None:
    account = Account(key())
    for _ in range(1000):
        account.enter(0.0)
        account.spend(10**9, 0.0)


def test_requests_at_once_are_limited_until_one_ends() -> None:
    account = Account(key(max_requests=2))
    account.enter(0.0)
    account.enter(0.0)
    assert wait_of(account, 0.0) == 1.0
    account.leave()
    account.enter(0.0)


def test_a_refused_request_takes_no_place() -> None:
    account = Account(key(max_requests=1))
    account.enter(0.0)
    for _ in range(3):
        wait_of(account, 0.0)
    account.leave()
    account.enter(0.0)


def test_tokens_are_a_minutes_worth_that_comes_back_with_time() -> None:
    """What the last request took too much is waited for: exactly as long as is told."""
    account = Account(key(tokens_per_minute=60))
    account.enter(100.0)
    account.spend(90, 100.0)
    wait_s = wait_of(account, 100.0)
    assert wait_s == pytest.approx(31.0)
    wait_of(account, 129.0)
    account.enter(100.0 + wait_s)


def test_a_quiet_hour_saves_no_more_than_a_minutes_worth() -> None:
    account = Account(key(tokens_per_minute=60))
    account.enter(3600.0)
    account.spend(60, 3600.0)
    wait_of(account, 3600.0)


def test_a_key_is_found_by_itself_alone() -> None:
    accounts = Accounts([key("one", tenant="a"), key("two", tenant="b")])
    one, two = accounts.find("one"), accounts.find("two")
    assert one is not None and two is not None and (one.tenant, two.tenant) == ("a", "b")
    for wrong in ("", "on", "onee", "ONE", "three", one.tenant, key("one").sha256, "\u00e9"):
        assert accounts.find(wrong) is None


def test_where_no_key_is_configured_none_is_asked_for() -> None:
    assert not Accounts([]) and Accounts([key()])


def test_keys_are_tenants_of_their_own_unless_they_name_one() -> None:
    mine, theirs = Account(key("one")), Account(key("two"))
    assert mine.tenant != theirs.tenant
    assert Account(key("one", tenant="a")).tenant == Account(key("two", tenant="a")).tenant


def test_no_two_tenants_have_a_salt_in_common() -> None:
    """Also not those that try: a salt that says another tenant's name is only a salt."""
    salts = [
        tenant_salt(tenant, salt)
        for tenant in ("", "a", "b", "a\0")
        for salt in ("", "a", "b", "\0", "a\0b", tenant_salt("a", ""))
        if tenant or salt != tenant_salt("a", "")
    ]
    assert len(set(salts)) == len(salts)
    assert tenant_salt("", "mine") == "mine"
