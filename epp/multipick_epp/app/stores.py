"""The configuration -> the state it asks for."""

import os
from dataclasses import replace

from multipick_epp.config import Config, ConfigError, secret
from multipick_epp.state.memory import MemoryState
from multipick_epp.state.redis.address import Server, parse_url
from multipick_epp.state.redis.state import RedisState
from multipick_epp.types import ReplicaId

MEMORY = "memory"
URL_VARIABLE = "MULTIPICK_STATE_URL"


def store_url(config: Config) -> str:
    """Where the pool's pickers share their state, or MEMORY.

    The environment variable MULTIPICK_STATE_URL replaces `state`: a URL with a password belongs into a Secret.
    """
    return os.environ.get(URL_VARIABLE) or config.state


def store_password(config: Config) -> str | None:
    """The store's password, where it isn't in the URL. Raises ConfigError where its variable is not set, or no text."""
    if config.state_password_env is None:
        return None
    try:
        return secret(config.state_password_env).decode()
    except UnicodeDecodeError:  # its message would show the password
        raise ConfigError(f"environment variable {config.state_password_env} is not UTF-8") from None


def server(config: Config) -> Server | None:
    """The store; None for a state in memory. Raises ConfigError for a URL that can't be read."""
    url = store_url(config)
    if url == MEMORY:
        return None
    try:
        parsed = parse_url(url)
    except ValueError as error:
        raise ConfigError(f"state: {error}") from error
    password = store_password(config)
    return parsed if password is None else replace(parsed, password=password)


def make_state(config: Config, replica: ReplicaId) -> MemoryState | RedisState:
    """The pool's state, to be started. Into a shared one another process ingests: see `feeds`."""
    store, weights = server(config), config.events.medium_weights
    if store is None:
        return MemoryState(medium_weights=weights)
    return RedisState(store, config.pool.name, replica, ingests=False, medium_weights=weights)
