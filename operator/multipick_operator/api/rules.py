"""CEL rules of the CRD: what no single field's type can say. One message each, in words a user can act on."""

from dataclasses import dataclass

from msgspec import Struct

from multipick_operator.api.engine import DeviceClaim, Engine, KvEvents, Model, Parallelism, Resources, Scheduling
from multipick_operator.api.fields import EnvFrom, EnvSource, EnvVar
from multipick_operator.api.lora import Adapter, RuntimeAdapter
from multipick_operator.api.pool import Autoscaling, ExistingPods, Index, PodMonitor, PoolSpec, Rollout
from multipick_operator.api.routing import HeaderMatch, HttpRoute, Picker, PickerResources
from multipick_operator.api.storage import Cache, Fetch
from multipick_operator.api.texts import (
    ADAPTER,
    ARTIFACT,
    HTTP_URL,
    IMAGE,
    IMAGE_WORDS,
    STORE_URL,
    STORE_URL_WORDS,
    VOLUME,
)

MAX_NAME = 45  # the longest suffix of a child's name must still fit a label value of 63

MAX_GROUPED_NAME = 39
"""Of a pool whose replicas span nodes, in letters.

LeaderWorkerSet makes a StatefulSet of each group's workers, `<pool>-engine-<group>`, and its pods carry the name of its
revision, which is 11 letters longer, in a label of at most 63. 10,000 groups and their surge have numbers of 5 digits.
"""


@dataclass(frozen=True, slots=True)
class Rule:
    """A CEL expression over `self`, and what to tell the user where it is false."""

    expression: str
    message: str
    of_new_ones: bool = False  # one that is there already may break it; else not even its status could be written


NAME_RULES = (
    Rule(
        f"self.metadata.name.size() <= {MAX_NAME} && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
        f"a pool's name is at most {MAX_NAME} lower-case letters, digits and hyphens, and starts with a letter",
    ),
)

ROOT_RULES = (
    *NAME_RULES,
    Rule(
        f"self.spec.parallelism.nodes == 1 || self.metadata.name.size() <= {MAX_GROUPED_NAME}",
        f"a pool's name is at most {MAX_GROUPED_NAME} letters where parallelism.nodes > 1: LeaderWorkerSet adds to it",
        of_new_ones=True,
    ),
    Rule(
        "!has(self.spec.routing.gateway.httpRoute.canary)"
        " || self.spec.routing.gateway.httpRoute.canary.pool != self.metadata.name",
        "httpRoute.canary.pool is this very pool",
    ),
)

_GAP = "(self.engine.kvEvents.replayPort - self.engine.kvEvents.port)"

# what the picker brings (`multipick_epp.policy`); an image of one's own may bring more
POLICIES = (
    *("lmetric", "marginal", "round-robin", "random", "least-request", "power-of-two", "vllm-v1", "vllm-032"),
    *("linear", "dynamo", "aibrix", "smg", "llm-d", "dualmap", "preble"),
    *("lmetric-seconds", "p-token", "lmetric-no-queue", "hit-ratio-batch", "p-token-total-tokens"),
)
WITH_PARAMETER = ("linear",)  # a number from 0 to 1 after a colon
_SHARE = "(0([.][0-9]*)?|1([.]0*)?|[.][0-9]+)"


def _known(policy: str) -> str:
    return f"({policy} in {list(POLICIES)} || {policy}.matches('^({'|'.join(WITH_PARAMETER)}):{_SHARE}$'))"


_LABEL = r"^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$"


def _labelled(field: str) -> Rule:
    """A map whose keys are labels of Kubernetes: such a key is no pattern of the schema."""
    rule = f"!has(self.{field}) || self.{field}.all(key, key.matches('{_LABEL}'))"
    return Rule(
        rule, f"{field}: the name of a label has letters, digits, '-', '_' and '.', perhaps after a domain and '/'"
    )


_HOST = r"^([*][.])?[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
_RESOURCE = r"^([a-z0-9.-]+/)?[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$"
_RESOURCES = tuple(
    Rule(
        f"!has(self.{field}) || self.{field}.all(key, key.matches('{_RESOURCE}'))",
        f"{field}: names of resources, such as cpu or nvidia.com/gpu",
    )
    for field in ("requests", "limits")
)


def _form(field: str, pattern: str, words: str) -> Rule:
    """What the schema's pattern refuses, in words."""
    quoted = pattern.replace("\\", "\\\\").replace("'", "\\'")
    return Rule(f"!has(self.{field}) || self.{field}.matches('{quoted}')", f"{field}: {words}")


_IMAGE_FORM = _form("image", IMAGE, IMAGE_WORDS)

RULES: dict[type[Struct], tuple[Rule, ...]] = {
    PoolSpec: (
        Rule("has(self.existingPods) || has(self.model.uri)", "model.uri is required unless existingPods is given"),
        Rule(
            "has(self.existingPods) == has(oldSelf.existingPods)",
            "a pool can't change between own and existing pods: make a new one",
        ),
        Rule(
            "!(has(self.existingPods) && has(self.autoscaling))",
            "autoscaling is for pods that this pool makes: scale existingPods where they are made",
        ),
        Rule(
            "!has(self.existingPods) || self.replicas == 1",
            "replicas are of pods that this pool makes: scale existingPods where they are made",
        ),
        Rule(
            "self.engine.type != 'SGLang' || self.parallelism.data == 1",
            "parallelism.data > 1 needs one port a rank, which SGLang does not offer: use replicas",
        ),
        Rule(
            "self.engine.type != 'SGLang' || !has(self.model.aliases) || size(self.model.aliases) == 0",
            "model.aliases: SGLang serves one name",
        ),
        Rule(
            "self.engine.type != 'SGLang' || oldSelf.engine.type != 'SGLang' || "
            "(self.engine.kvEvents.port == oldSelf.engine.kvEvents.port"
            " && self.engine.kvEvents.replayPort == oldSelf.engine.kvEvents.replayPort)",
            "engine.kvEvents: ports can't change, since SGLang's running pods don't tell theirs: make a new pool",
        ),
        Rule(
            "self.engine.type == oldSelf.engine.type",
            "engine.type can't change, since pools are followed by it: make a new pool",
        ),
        Rule(
            "self.engine.type != 'Simulated' || self.parallelism.nodes == 1",
            "a Simulated engine has one node",
        ),
        Rule(
            f"!self.engine.kvEvents.enabled || {_GAP} >= self.parallelism.data || -{_GAP} >= self.parallelism.data",
            "engine.kvEvents: rank r uses port + r and replayPort + r, and these overlap",
        ),
        Rule(
            "!self.engine.kvEvents.enabled || ("
            "(self.engine.port + self.parallelism.data <= self.engine.kvEvents.port"
            " || self.engine.kvEvents.port + self.parallelism.data <= self.engine.port) && "
            "(self.engine.port + self.parallelism.data <= self.engine.kvEvents.replayPort"
            " || self.engine.kvEvents.replayPort + self.parallelism.data <= self.engine.port))",
            "engine.port + rank overlaps the ports of engine.kvEvents",
        ),
        Rule(
            "self.engine.port + self.parallelism.data <= 65536 && (!self.engine.kvEvents.enabled ||"
            " (self.engine.kvEvents.port + self.parallelism.data <= 65536"
            " && self.engine.kvEvents.replayPort + self.parallelism.data <= 65536))",
            "rank r uses port + r: of engine.port or of engine.kvEvents' ports the last one is above 65535",
        ),
        Rule(
            "!self.routing.gateway.httpRoute.create || self.routing.gateway.createInferencePool",
            "httpRoute.create needs createInferencePool: the route leads to that object",
        ),
        Rule(
            "!has(self.storage.fetch) || (self.engine.type != 'Simulated' && has(self.model.uri)"
            " && !self.model.uri.matches('^(pvc://|oci://|/)'))",
            "storage.fetch is for models of hf:// and s3://: the kubelet brings volumes and images by itself",
        ),
        Rule(
            "!has(self.routing.picker.capture) || !has(self.index)",
            "capture makes its ids with a secret that only pools of the operator's own store have: without index",
        ),
        Rule(
            "!has(self.adapters) || size(self.adapters) == 0 || (has(self.lora) && self.lora.allowRuntimeUpdates)",
            "adapters come and go while engines run: that needs lora.allowRuntimeUpdates",
        ),
        Rule(
            "!has(self.adapters) || !has(self.lora) || !has(self.lora.adapters)"
            " || !self.adapters.exists(one, self.lora.adapters.exists(other, other.name == one.name))",
            "an adapter is one of adapters or one of lora.adapters",
        ),
    ),
    RuntimeAdapter: (
        Rule(
            "self.uri == oldSelf.uri",
            "an adapter's uri can't change, since what is cached of it goes by its name: give the new one a new name",
        ),
    ),
    Adapter: (_form("uri", ADAPTER, "hf://org/name, pvc://claim/path, oci://image, or a path, without = and comma"),),
    Model: (
        _form("uri", ARTIFACT, "hf://org/name, pvc://claim/path, oci://image, s3://bucket/path, or a path"),
        _form("tokenizerUri", VOLUME, "pvc://claim/path, oci://image, or a path"),
        Rule(
            "has(self.name) == has(oldSelf.name) && (!has(self.name) || self.name == oldSelf.name)",
            "model.name can't change, since running pods answer to it: add it to aliases, or make a new pool",
        ),
    ),
    Autoscaling: (
        _form(
            "prometheusUrl",
            HTTP_URL,
            "http:// or https://, host[:port] and a path, without user and password: KEDA has triggers for these",
        ),
        Rule("self.minReplicas <= self.maxReplicas", "minReplicas is above maxReplicas"),
        Rule(
            "self.backend != 'KEDA' || has(self.prometheusUrl) || (has(self.triggers) && size(self.triggers) > 0)",
            "backend KEDA needs prometheusUrl or triggers",
        ),
        Rule(
            "self.backend == 'KEDA' || (!has(self.cooldownSeconds) && !self.idleToZero"
            " && (!has(self.triggers) || size(self.triggers) == 0))",
            "triggers, cooldownSeconds and idleToZero are KEDA's",
        ),
    ),
    Index: (
        _form("url", STORE_URL, STORE_URL_WORDS),
        Rule("!self.url.matches('[?&]key=') || self.url.matches('[?&]cert=')", "url: key goes with cert"),
        Rule(
            "!self.url.matches('^[^:]+://[^/?@]*:[^/?]*@')",
            "index.url: everybody who may see the pool would see its password: that is in passwordSecretRef",
        ),
    ),
    Engine: (
        _IMAGE_FORM,
        Rule(
            "self.hashSeed == '' || int(self.hashSeed) <= 4294967295",
            "engine.hashSeed: Python takes none above 4294967295",
        ),
    ),
    KvEvents: (
        Rule(
            "!has(self.media) || self.media.all(name, name.matches('^[A-Za-z][A-Za-z0-9_]{0,31}$')"
            " && name.lowerAscii() != 'gpu'"
            " && !self.media.exists(other, other != name && other.lowerAscii() == name.lowerAscii()))",
            "media: the engine's name of where, each once; a token on the GPU is worth 100",
        ),
    ),
    Fetch: (_IMAGE_FORM,),
    Picker: (
        _IMAGE_FORM,
        Rule(
            f"{_known('self.policy')} || has(self.image)",
            f"policy is one of {', '.join(POLICIES)}, or one that an image of your own brings (image)",
        ),
        Rule(
            f"!has(self.shadow) || has(self.image) || self.shadow.all(one, {_known('one')})",
            f"shadow: each is one of {', '.join(POLICIES)}, or one that an image of your own brings (image)",
        ),
        Rule("self.maxReadBytes <= self.maxBodyBytes", "maxReadBytes is above maxBodyBytes"),
        Rule(
            "!has(self.capture) || self.capture.files >= 2 * self.workers",
            "capture.files: at least two for each of the workers, or they would delete what is open",
        ),
    ),
    Parallelism: (
        Rule("self.data == 1 || self.nodes == 1", "data > 1 and nodes > 1 don't go together yet"),
        Rule("(self.tensor * self.pipeline) % self.nodes == 0", "tensor * pipeline must be a multiple of nodes"),
        Rule(
            "(self.nodes == 1) == (oldSelf.nodes == 1)",
            "nodes can't change between 1 and more, since pods of both kinds can't serve side by side: make a new pool",
        ),
    ),
    Rollout: (
        Rule(
            "self.strategy == 'Recreate' || "
            "!((self.maxSurge == 0 || self.maxSurge == '0%')"
            " && (self.maxUnavailable == 0 || self.maxUnavailable == '0%'))",
            "maxSurge and maxUnavailable can't both be 0: no pod could ever be replaced",
        ),
    ),
    DeviceClaim: (
        Rule("has(self.templateName) != has(self.claimName)", "exactly one of templateName and claimName"),
        Rule(
            "self.name.matches('^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$')",
            "name: a claim's name within a pod is at most 63 lower-case letters, digits and hyphens",
        ),
    ),
    Resources: _RESOURCES,
    PickerResources: _RESOURCES,
    Cache: (
        Rule(
            "!self.mountPath.matches('(^|/)[.][.]?(/|$)|^/(dev|proc|sys)(/|$)')",
            "mountPath: a folder by itself, without . and .., and not of /dev, /proc or /sys",
        ),
        Rule("self.type != 'ExistingClaim' || has(self.claimName)", "type ExistingClaim needs claimName"),
        Rule("self.type != 'HostPath' || has(self.hostPath)", "type HostPath needs hostPath"),
    ),
    HeaderMatch: (
        Rule('self.name.matches("^[A-Za-z0-9!#$%&\'*+.^_`|~-]+$")', "headers: a name has neither spaces nor colons"),
    ),
    HttpRoute: (
        Rule(
            f"!has(self.hostnames) || self.hostnames.all(one, one.matches('{_HOST}'))",
            "hostnames: names of hosts in lower case, of which the first part may be *",
        ),
        Rule(
            "!self.create || (has(self.parentRefs) && size(self.parentRefs) > 0)", "httpRoute.create needs parentRefs"
        ),
    ),
    ExistingPods: (_labelled("matchLabels"),),
    Scheduling: (_labelled("nodeSelector"),),
    PodMonitor: (_labelled("labels"),),
    EnvVar: (Rule("!(has(self.value) && has(self.valueFrom))", "value and valueFrom exclude each other"),),
    EnvSource: (
        Rule(
            "[has(self.secretKeyRef), has(self.configMapKeyRef), has(self.fieldRef)].filter(x, x).size() == 1",
            "exactly one source",
        ),
    ),
    EnvFrom: (Rule("has(self.secretRef) != has(self.configMapRef)", "exactly one of secretRef and configMapRef"),),
}
