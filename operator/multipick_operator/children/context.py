"""What the children depend on besides the pool's own spec."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from multipick_operator.api.engine import EngineType, PullPolicy
from multipick_operator.api.pool import Pool

MAX_PORTS = 8  # of the Gateway API's InferencePool


@dataclass(frozen=True, slots=True)
class Defaults:
    """What the operator was started with."""

    picker_image: str
    engine_images: Mapping[EngineType, str]
    picker_image_pull_policy: PullPolicy | None = None  # None: Kubernetes' own rule
    state_url: str | None = None  # Valkey of the chart; None: a picker keeps its state to itself
    state_password: str | None = field(default=None, repr=False)
    state_users: bool = False  # each pool has a user of its own there
    fixed_ids: bool = True  # pickers run as one user id; else as the platform says


@dataclass(frozen=True, slots=True)
class Context:
    """The defaults, and what the cluster says about this pool."""

    defaults: Defaults
    pin: str | None = None  # as `pin_of` wrote it on the engines' workload, where there is one
    secret_version: str = ""  # changes when the Secret that the picker reads does
    claim_modes: tuple[str, ...] = ()  # access modes of the cache's claim, where there is one
    other_ports: tuple[int, ...] = ()  # of engine pods that are not gone yet, besides those of the spec
    gateway_classes: tuple[str, ...] = ()  # of the Gateways that the route names, as far as was ever known
    other_event_ports: tuple[int, ...] = ()  # of KV events and their replay, as `other_ports`
    stamp: str = ""  # of the pickers' secrets, where they can't be read; empty: as they are

    def ports(self, pool: Pool) -> tuple[int, ...]:
        """Every HTTP port of an engine of the pool: those of the spec first, then those of older pods."""
        return (*pool.ports, *self.other_ports)

    def engine_image(self, pool: Pool) -> str | None:
        """The spec's image; else the default that this pool was made with; else today's default.

        A default that a new operator brings must not restart GPU pods that nobody touched, so it is for new pools.
        None where there is no default for this engine.
        """
        engine = pool.spec.engine
        if engine.image:
            return engine.image
        kind, _, image = (self.pin or "").partition(" ")
        return image if kind == engine.type.value else self.defaults.engine_images.get(engine.type)

    def state_url(self, pool: Pool) -> str | None:
        """Where the pool's pickers share their state; None: nowhere."""
        return pool.spec.index.url if pool.spec.index else self.defaults.state_url


def pin_of(pool: Pool, image: str) -> str | None:
    """Engine and image, to be kept with the workload; None where the spec itself names the image."""
    return None if pool.spec.engine.image else f"{pool.spec.engine.type.value} {image}"
