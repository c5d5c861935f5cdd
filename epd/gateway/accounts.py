"""Who asks: the accounts behind the keys, and what each of them may use at once and per minute.

Pure: the caller says what time it is. Keys are compared by their hashes in constant time.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence

from epd.config import ApiKey
from epd.errors import Overloaded

MINUTE_S = 60.0
RETRY_S = 1.0
"""When to try again where only the end of another request makes room."""


class Account:
    """What one key has in use.

    Tokens are a bucket that holds a minute's worth, refilled all the time. They are known only when
    a request has ended, so the last one may take more than there was: that is waited for later.
    """

    def __init__(self, key: ApiKey) -> None:
        self.tenant = key.tenant or key.sha256[:16]
        self._max_requests = key.max_requests
        self._per_minute = key.tokens_per_minute
        self._num_requests = 0
        self._tokens = float(key.tokens_per_minute or 0)
        self._filled = 0.0

    def enter(self, now: float) -> None:
        """A request begins. Overloaded where the key has reached a limit."""
        if self._max_requests is not None and self._num_requests >= self._max_requests:
            raise _limited(f"{self._max_requests} requests at once", RETRY_S)
        if self._per_minute is not None:
            self._refill(now, self._per_minute)
            if self._tokens <= 0:
                wait_s = (1 - self._tokens) * MINUTE_S / self._per_minute
                raise _limited(f"{self._per_minute} tokens per minute", wait_s)
        self._num_requests += 1

    def leave(self) -> None:
        """It has ended, however."""
        self._num_requests -= 1

    def spend(self, num_tokens: int, now: float) -> None:
        """What a request has cost."""
        if self._per_minute is not None:
            self._refill(now, self._per_minute)
            self._tokens -= num_tokens

    def _refill(self, now: float, per_minute: int) -> None:
        gained = max(0.0, now - self._filled) * per_minute / MINUTE_S
        self._tokens = min(float(per_minute), self._tokens + gained)
        self._filled = now


class Accounts:
    """Every account by its key."""

    def __init__(self, keys: Sequence[ApiKey]) -> None:
        self._accounts = [(key.sha256, Account(key)) for key in keys]

    def __bool__(self) -> bool:
        """Whether a key is asked for at all."""
        return bool(self._accounts)

    def find(self, shown: str) -> Account | None:
        """Takes equally long for every key, right or wrong."""
        digest, found = hashlib.sha256(shown.encode()).hexdigest(), None
        for known, account in self._accounts:
            if hmac.compare_digest(known, digest):
                found = account
        return found


def tenant_salt(tenant: str, salt: str) -> str:
    """What a client's cache_salt is called inside its tenant; no two tenants have one in common."""
    if not tenant:
        return salt
    of_tenant = hashlib.sha256(tenant.encode()).digest()
    return hashlib.sha256(of_tenant + salt.encode()).hexdigest()


def _limited(limit: str, retry_after_s: float) -> Overloaded:
    return Overloaded(
        f"this key is limited to {limit}", code="rate_limit_exceeded", retry_after_s=retry_after_s
    )
