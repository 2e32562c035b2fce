"""The pool's own user of the shared store: it can do what pickers do (docs/state.md), with the pool's keys only."""

import hashlib
import hmac
import re
from typing import NamedTuple

from multipick_operator.api.pool import Pool
from multipick_operator.children.context import Context

COMMANDS = (
    *("+auth", "+select", "+role", "+cluster|slots", "+evalsha", "+script|load"),
    *("+get", "+set", "+expire", "+unlink", "+exists", "+time"),
    *("+hget", "+hmget", "+hset", "+hsetnx", "+hincrby", "+hdel", "+hlen", "+hexists", "+hkeys", "+hgetall", "+hscan"),
    *("+sadd", "+srem", "+smembers", "+sscan", "+scard", "+zadd", "+zrem", "+zrange"),
    *("+xadd", "+xread", "+xrange", "+xrevrange"),
)


class StoreUser(NamedTuple):
    """A user by name, with the rules that make it, after `reset`."""

    name: str
    rules: tuple[str, ...]

    def __repr__(self) -> str:
        """Its rules hold a password."""
        return f"StoreUser({self.name!r})"


def store_user(pool: Pool, context: Context) -> StoreUser | None:
    """The user that the pool needs; None where it has none of its own."""
    password = user_password(pool, context)
    if password is None:
        return None
    hashed = hashlib.sha256(password.encode()).hexdigest()
    keys = f"~{{kv:{pool.namespace}/{pool.name}}}:*"
    return StoreUser(user_name(pool), ("on", f"#{hashed}", keys, "resetchannels", "-@all", *COMMANDS))


def user_name(pool: Pool) -> str:
    """Neither part can hold a dot: no two pools have one name."""
    return f"{pool.namespace}.{pool.name}"


def user_password(pool: Pool, context: Context) -> str | None:
    """Follows from the store's password and the pool's identity: every operator finds the same."""
    defaults = context.defaults
    if pool.spec.index or not defaults.state_users or not defaults.state_url or not defaults.state_password:
        return None
    return hmac.new(defaults.state_password.encode(), f"store user of {pool.uid}".encode(), hashlib.sha256).hexdigest()


def user_url(url: str, pool: Pool) -> str:
    """The store's URL with the pool's user in it, in the place of an administrator's."""
    return re.sub("://([^/?#@]*@)?", f"://{user_name(pool)}@", url, count=1)
