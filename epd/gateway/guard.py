"""Who may ask: one rule for all routes, before anything of a request's body is read.

Where keys are configured, whatever is not named here needs one of them, routes that do not exist
included. The rule looks at the path that is routed, never at what a client says of the host.
"""

from __future__ import annotations

import hmac
import re
import time
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from epd.errors import Unauthorized
from epd.gateway.accounts import Account, Accounts

ACCOUNT: Final = "epd.account"
"""Where a request's scope has its Account."""

PUBLIC: Final = frozenset({"/health", "/ready"})
"""The probes: they say nothing but whether this process lives and can take work."""

OPERATORS: Final = re.compile(r"/cluster(/.*)?|/metrics", re.DOTALL)
"""What the operator's key opens too."""


class Guard:
    """Lets a request in with its account, or answers 401 or 429."""

    def __init__(
        self,
        app: ASGIApp,
        accounts: Accounts,
        admin_key: str,
        public: frozenset[str] = PUBLIC,
    ) -> None:
        self._app = app
        self._public = public
        self._accounts = accounts
        self._admin_key = admin_key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or not self._accounts or scope.get("path") in self._public:
            await self._app(scope, receive, send)
            return
        shown = _shown(scope)
        if self._is_operator(scope["path"], shown):
            await self._app(scope, receive, send)
            return
        account = scope[ACCOUNT] = self._accounts.find(shown)
        if account is None:
            raise Unauthorized("the header Authorization: Bearer KEY has no key that is known here")
        if scope.get("method") != "POST":
            await self._app(scope, receive, send)
            return
        account.enter(time.monotonic())
        try:
            await self._app(scope, receive, send)
        finally:
            account.leave()

    def _is_operator(self, path: str, shown: str) -> bool:
        if not self._admin_key or not OPERATORS.fullmatch(path):
            return False
        return hmac.compare_digest(shown.encode(), self._admin_key)


def account_of(scope: Scope) -> Account | None:
    """Whose request it is; None where no keys are configured, or for the operator."""
    account: Account | None = scope.get(ACCOUNT)
    return account


def tenant_of(scope: Scope) -> str:
    """Whose caches it may share; "" where no keys are configured."""
    account = account_of(scope)
    return account.tenant if account is not None else ""


def _shown(scope: Scope) -> str:
    """The bearer's key; empty where there is none, or where it is not clear which."""
    values = [value for name, value in scope["headers"] if name == b"authorization"]
    if len(values) != 1:
        return ""
    scheme, _, key = values[0].decode("latin-1").partition(" ")
    return str(key.strip()) if scheme.lower() == "bearer" else ""
