"""The picker's Prometheus metrics. Names, units and labels stand in docs/metrics.md."""

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from multipick_epp.telemetry.tallies import Spreads, Tallies

_SECONDS = (0.00002, 0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25)
_TOKENS = (0, 64, 256, 1024, 4096, 16384, 65536, 262144)


class Metrics:
    """One set of metrics on its own registry, so that several pickers can live in one process (tests, benchmarks)."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.decisions = Tallies(
            "multipick_decisions", "Requests that were given an endpoint.", ["policy", "mode"], self.registry
        )
        self.refusals = Counter(
            "multipick_refusals", "Requests that were answered by the picker.", ["reason"], registry=self.registry
        )
        self.decision_seconds = Spreads(
            "multipick_decision_seconds", "From a whole request to its endpoint.", (), _SECONDS, self.registry
        )
        self.stage_seconds = Spreads(
            "multipick_decision_stage_seconds", "The same, by stage.", ["stage"], _SECONDS, self.registry
        )
        self.prompt_tokens = Tallies("multipick_prompt_tokens", "Prompt tokens of routed requests.", (), self.registry)
        self.hit_tokens = Spreads(
            "multipick_predicted_hit_tokens",
            "Leading prompt tokens that the chosen endpoint holds, by the index.",
            (),
            _TOKENS,
            self.registry,
        )
        self.predictions_compared = Counter(
            "multipick_predictions_compared",
            "Predicted hits that were held against what the engine told of the same request.",
            ["outcome"],
            registry=self.registry,
        )
        self.predictions_off_tokens = Counter(
            "multipick_predictions_off_tokens", "By how many tokens they were off.", ["outcome"], registry=self.registry
        )
        self.fallbacks = Counter(
            "multipick_fallbacks",
            "Decisions on a lower rung: why the exact one was not to be had.",
            ["reason"],
            registry=self.registry,
        )
        self.in_flight = Gauge(
            "multipick_endpoint_in_flight", "Requests on the endpoint.", ["endpoint"], registry=self.registry
        )
        self.queued_tokens = Gauge(
            "multipick_endpoint_queued_tokens",
            "Prompt tokens routed there and not prefilled yet.",
            ["endpoint"],
            registry=self.registry,
        )
        self.unexplained_in_flight = Gauge(
            "multipick_endpoint_unexplained_in_flight",
            "Requests on the engine that no reservation explains.",
            ["endpoint"],
            registry=self.registry,
        )
        self.endpoint_ready = Gauge(
            "multipick_endpoint_ready", "1 where the endpoint can serve.", ["endpoint"], registry=self.registry
        )
        self.stream_seconds = Spreads(
            "multipick_ext_proc_seconds",
            "A stream until its pick: receive (the gateway sends the body), pick, reply.",
            ["stage"],
            _SECONDS,
            self.registry,
        )
        self.streams = Gauge("multipick_ext_proc_streams", "ext_proc streams that are open.", registry=self.registry)
        self.stream_errors = Counter(
            "multipick_ext_proc_errors", "Streams on which something failed.", ["reason"], registry=self.registry
        )
        self.undecided = Counter(
            "multipick_ext_proc_undecided",
            "Requests that left without a pick: served by an endpoint all the same, or left before it was there.",
            ["how"],
            registry=self.registry,
        )
        self.reserved_fields = Counter(
            "multipick_reserved_fields",
            "Bodies with fields that only the pool may set (removed, refused), and bodies never looked at (unread).",
            ["outcome"],
            registry=self.registry,
        )
        self.refused_connections = Counter(
            "multipick_ext_proc_refused_connections",
            "Connections that were cut by the picker.",
            ["reason"],
            registry=self.registry,
        )
        self.hotspots = Counter(
            "multipick_hotspots",
            "Prefixes of which more came to be asked than their holders' part of the pool.",
            registry=self.registry,
        )
        self.kept_out = Counter(
            "multipick_hotspot_kept_out",
            "Requests that the hotspot guard kept out of the holders of their prefix.",
            registry=self.registry,
        )
        self.shadow_decisions = Counter(
            "multipick_shadow_decisions",
            "Decisions that another policy was asked about: it would choose the same endpoint, another, or failed.",
            ["policy", "choice"],
            registry=self.registry,
        )
        self.shadow_hit_tokens = Counter(
            "multipick_shadow_hit_tokens",
            "Prompt tokens that the other policy's endpoints hold, by the index.",
            ["policy"],
            registry=self.registry,
        )
        self.shadow_own_hit_tokens = Counter(
            "multipick_shadow_own_hit_tokens",
            "The same of the endpoints that were chosen, of the same requests.",
            ["policy"],
            registry=self.registry,
        )
        self.shadow_regret = Counter(
            "multipick_shadow_regret",
            "By how much the other policy's endpoints score worse than the chosen ones, as parts of their scores.",
            ["policy"],
            registry=self.registry,
        )
        self.shadows_skipped = Counter(
            "multipick_shadow_skipped", "Decisions that no other policy was asked about.", registry=self.registry
        )
        self.captured = Counter(
            "multipick_captured", "Requests that were written to the capture's files.", registry=self.registry
        )
        self.capture_lost = Counter(
            "multipick_capture_lost", "Requests that could not be captured.", ["reason"], registry=self.registry
        )

    def page(self) -> bytes:
        """The metrics in Prometheus' text form."""
        return generate_latest(self.registry)
