"""The one door to the engines over HTTP.

In: an endpoint and a question. Out: a checked value, or `Unanswered` with the reason; nothing is raised, whatever the
engine says or doesn't. `bounds` has every size, range and time; no redirect is followed. Called by `pods/` (metrics),
`events/` (publishers), `tokens/` (token ids) and `checks/` (models).
"""

from multipick_epp.engines.client import EngineClient
from multipick_epp.engines.metrics_looks import MetricsLooks
from multipick_epp.engines.unanswered import Unanswered, Why

__all__ = ["EngineClient", "MetricsLooks", "Unanswered", "Why"]
