"""The state of a pool in a Redis-compatible server.

In: `Server` (by `address`, from a URL), a pool's name, this replica's name. Out: `RedisState`. Walk: `server` finds the
node and `dial`s it, asking by `discovery` where there are several, `link` keeps the `connection`; `writer` and `loads`
(by `turns`, into its `view`) call `scripts` on `keys`, `tail` plays `records` of the log into the mirror, `sets` loads
it, `comparison` compares the two. What comes back is checked by `replies`; what somebody else wrote is skipped by
`malformed`. Called by `app`, by the ingest process and by nothing else.
"""

from multipick_epp.state.redis.address import Server, parse_url
from multipick_epp.state.redis.state import RedisState

__all__ = ["RedisState", "Server", "parse_url"]
