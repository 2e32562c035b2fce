"""The adapters' part of the spec: LoRA, at the engines' start and while they run."""

from typing import Annotated

from msgspec import Meta

from multipick_operator.api.fields import LIST_MAP, ShortText, Spec
from multipick_operator.api.texts import AdapterUri, LoadedName


class Adapter(Spec, frozen=True):
    """One LoRA adapter that is loaded at start."""

    name: Annotated[LoadedName, Meta(description="Name that clients ask for.")]
    uri: Annotated[AdapterUri, Meta(description="hf://, pvc://, oci:// or a path in the engine's image.")]


class Lora(Spec, frozen=True):
    """Whether engines serve LoRA adapters, and those that they start with: changing these restarts the pods."""

    max_loras: Annotated[int, Meta(ge=1, le=256, description="Adapters in one batch.")] = 4
    max_rank: Annotated[int, Meta(ge=1, le=512, description="Largest rank of an adapter.")] = 16
    adapters: Annotated[
        tuple[Adapter, ...],
        Meta(max_length=64, extra_json_schema=LIST_MAP, description="Adapters that every engine serves."),
    ] = ()
    allow_runtime_updates: Annotated[
        bool,
        Meta(
            description="Engines load and unload adapters while they run: for `adapters`, and for whoever reaches them."
        ),
    ] = False


class RuntimeAdapter(Spec, frozen=True):
    """One LoRA adapter that comes and goes while engines run."""

    name: Annotated[ShortText, Meta(description="Name that clients ask for.")]
    uri: Annotated[
        str,
        Meta(
            max_length=1024,
            pattern=r"^(hf://[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9._-]+|/[^\s]*)$",
            description="hf://org/name, or a path that every engine has: in its image, or on a volume of podTemplate.",
        ),
    ]
