"""Who asks: API keys and standing of users, from control.tenants."""

import hmac
from collections import defaultdict
from dataclasses import dataclass

from gateway.keys import key_digest, key_id_of
from gateway.problems import Problem
from schemas.codec import Record

_CHALLENGE = {"www-authenticate": "Bearer"}


@dataclass(frozen=True, kw_only=True)
class Principal:
    """Who a request comes from. requests_per_minute: the refill rate of the user's token bucket."""

    user_id: str
    key_id: str
    tier: str
    scopes: frozenset[str]
    requests_per_minute: float


@dataclass(frozen=True, kw_only=True)
class _Entry:
    user_id: str
    sha256: str
    revoked_at_ms: int | None


class TenantDirectory:
    """Users and their keys in memory; belongs to the event loop. `loaded` once all of control.tenants was read."""

    def __init__(self) -> None:
        self.loaded = False
        self._tenants: dict[str, Record] = {}
        self._scopes: dict[str, frozenset[str]] = {}
        self._by_key_id: defaultdict[str, list[_Entry]] = defaultdict(list)

    def apply(self, user_id: str, tenant: Record | None) -> None:
        """Takes over a user's newest row; None removes the user."""
        before = self._tenants.pop(user_id, None)
        for key in before["keys"] if before else ():
            left = [e for e in self._by_key_id.pop(key["key_id"], []) if e.user_id != user_id]
            if left:
                self._by_key_id[key["key_id"]] = left
        if tenant is None:
            self._scopes.pop(user_id, None)
            return
        self._tenants[user_id] = tenant
        self._scopes[user_id] = frozenset(tenant["scopes"])
        for key in tenant["keys"]:
            entry = _Entry(user_id=user_id, sha256=key["sha256"], revoked_at_ms=key["revoked_at"])
            self._by_key_id[key["key_id"]].append(entry)

    def authenticate(self, authorization: str | None, now_ms: int) -> Principal:
        """Who the Authorization header names. Raises Problem 401."""
        if not authorization:
            raise Problem(
                "missing_key",
                "the request has no Authorization header",
                "send `Authorization: Bearer my_...`",
                field="Authorization",
                headers=_CHALLENGE,
            )
        scheme, _, text = authorization.partition(" ")
        text = text.strip()
        key_id = key_id_of(text) if scheme.lower() == "bearer" else None
        if key_id is not None:
            digest = key_digest(text)
            for entry in self._by_key_id.get(key_id, ()):
                if hmac.compare_digest(entry.sha256, digest):
                    if entry.revoked_at_ms is not None and entry.revoked_at_ms <= now_ms:
                        break
                    return self._principal(entry.user_id, key_id)
        raise Problem(
            "invalid_key",
            "no key of this text is valid",
            "check the key: it may be mistyped or revoked",
            field="Authorization",
            headers=_CHALLENGE,
        )

    def still_valid(self, principal: Principal, now_ms: int) -> bool:
        """Whether an open stream's key has been revoked or removed meanwhile."""
        return any(
            entry.user_id == principal.user_id and (entry.revoked_at_ms is None or entry.revoked_at_ms > now_ms)
            for entry in self._by_key_id.get(principal.key_id, ())
        )

    def _principal(self, user_id: str, key_id: str) -> Principal:
        return Principal(
            user_id=user_id,
            key_id=key_id,
            tier=self._tenants[user_id]["tier"],
            scopes=self._scopes[user_id],
            requests_per_minute=self._tenants[user_id]["requests_per_minute"],
        )
