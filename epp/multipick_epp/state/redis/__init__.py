"""The state of a pool in a Redis-compatible server.

In: `Server` (from a URL), a pool's name, this replica's name. Out: `RedisState`. Walk: `server` finds the node, `link`
keeps a `connection` to it; `writer` and `loads` (by `turns`, into its `view`) call `scripts` on `keys`, `tail` plays
`records` of the log into the mirror. Called by `app`, by the ingest process and by nothing else.
"""

from multipick_epp.state.redis.server import Server, parse_url
from multipick_epp.state.redis.state import RedisState

__all__ = ["RedisState", "Server", "parse_url"]
