"""The configuration -> the state it asks for."""

import os
from dataclasses import replace

from multipick_epp.config import Config, ConfigError, secret
from multipick_epp.state.memory import MemoryState
from multipick_epp.state.redis.server import Server, parse_url
from multipick_epp.state.redis.state import RedisState
from multipick_epp.types import ReplicaId

MEMORY = "memory"
URL_VARIABLE = "MULTIPICK_STATE_URL"


def store_url(config: Config) -> Server | None:
    """The server that the pool's pickers share; None for a state in memory. Raises ConfigError for a bad URL.

    The environment variable MULTIPICK_STATE_URL replaces `state`: a URL with a password belongs into a Secret.
    """
    url = os.environ.get(URL_VARIABLE) or config.state
    if url == MEMORY:
        return None
    try:
        server = parse_url(url)
    except ValueError as error:
        raise ConfigError(f"state: {error}") from error
    if config.state_password_env is None:
        return server
    password = secret(config.state_password_env).decode()
    return replace(server, password=password)


def make_state(config: Config, replica: ReplicaId) -> MemoryState | RedisState:
    """The pool's state, to be started. The picker's own process ingests only into memory: see `feeds`."""
    server = store_url(config)
    if server is None:
        return MemoryState()
    return RedisState(server, config.pool.name, replica, ingests=False)
