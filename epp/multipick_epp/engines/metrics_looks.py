"""One engine's metrics, looked at again and again."""

from multipick_epp.engines import bounds, metrics_page
from multipick_epp.engines.kept import KeptQuestion
from multipick_epp.engines.metrics_page import Gauges
from multipick_epp.engines.unanswered import Unanswered
from multipick_epp.types import Endpoint, address_of


class MetricsLooks:
    """One at a time; to be closed."""

    def __init__(self, endpoint: Endpoint, path: str) -> None:
        self._question = KeptQuestion(address_of(endpoint), path, bounds.METRICS_BYTES, bounds.METRICS_S)

    async def look(self) -> Gauges | Unanswered:
        """What the engine's Prometheus page says now."""
        page = await self._question.ask()
        return page if isinstance(page, Unanswered) else await metrics_page.read(page)

    def close(self) -> None:
        """A look that is awaited is `Unanswered`."""
        self._question.close()
