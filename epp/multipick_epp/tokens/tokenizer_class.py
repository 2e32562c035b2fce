"""Which class `transformers` 5.19 loads a model's tokenizer with (`models/auto/tokenization_auto.py`).

Most classes take tokenizer.json as it is. Some take only the vocabulary from there and bring their own pipeline
(`pipelines`), and whether one of these is used depends on the model's type as much as on the class that is named.
"""

from collections.abc import Mapping
from typing import Any

AS_FILED = "TokenizersBackend"
"""The class that takes tokenizer.json as it is."""

_TYPES = {
    "Qwen2Tokenizer": (
        "audioflamingo3 colqwen2 cosmos3_omni fun_asr_nano hunyuan_vl internvl lighton_ocr ovis2 qianfan_ocr qwen2 "
        "qwen2_5_omni qwen2_5_vl qwen2_audio qwen2_moe qwen2_vl qwen3 qwen3_asr qwen3_moe qwen3_next qwen3_omni_moe "
        "qwen3_vl qwen3_vl_moe vibevoice"
    ),
    "Qwen3_5Tokenizer": "qwen3_5 qwen3_5_moe qwen3_5_moe_text qwen3_5_text qwen4_exp",
    "GemmaTokenizer": (
        "diffusion_gemma gemma gemma2 gemma3 gemma3_text gemma3n gemma3n_text recurrent_gemma shieldgemma2 t5gemma zaya"
    ),
    "CohereTokenizer": "aya_vision cohere cohere2",
    "GPT2Tokenizer": (
        "blip-2 codegen dbrx emu3 gpt2 gpt_neo gptj hyperclovax_vision_v2 instructblip instructblipvideo jais2 opt phi "
        "starcoder2"
    ),
    "GPTNeoXTokenizer": "falcon_mamba gpt_neox mamba mamba2 mpt olmo olmoe rwkv xlstm",
    "LlamaTokenizer": "idefics idefics2",
    "CodeLlamaTokenizer": "code_llama",
    AS_FILED: (
        "EvollaModel aria bigbird_pegasus canary flex_olmo glm glm4 glm4_moe glm4_moe_lite glm4v glm4v_moe "
        "glm_image glmasr got_ocr2 gpt_bigcode granite granitemoe granitemoehybrid granitemoeshared kimi_k25 "
        "kimi_linear kosmos-2 mimo_v2_flash minicpmv4_6 minicpmv4_7 nystromformer olmo2 olmo3 olmo_hybrid "
        "pegasus_x persimmon pix2struct stablelm umt5 xlm-roberta-xl arctic chameleon chatlm deepseek_v2 "
        "deepseek_v3 deepseek_v32 deepseek_v4 deepseek_vl deepseek_vl_hybrid deepseek_vl_v2 deepseek_ocr "
        "deepseek_ocr2 ernie4_5 ernie4_5_moe fuyu h2ovl_chat hyperclovax hyperclovax_vlm internlm2 jamba janus "
        "llava llava_next minicpm3 minicpmv minimax_m2 modernbert modernbert-decoder molmo molmo2 nemotron nvfp4 "
        "opencua openvla paddleocr_vl phi3 phi3_v phimoe step3p5 step3_vl vipllava cohere_asr camembertv2-base "
        "smolvlm "
        # MistralCommonBackend there; vLLM asks for none of that where the folder is not in Mistral's own format
        "ministral ministral3 mistral mistral3 mixtral pixtral voxtral voxtral_realtime "
    ),
}
_REGISTERED = {model_type: name for name, types in _TYPES.items() for model_type in types.split()}

_CLASS_IS_WRONG = frozenset({"hyperclovax_vision_v2", "qwen2", *_TYPES["Qwen3_5Tokenizer"].split()} - {"qwen3_5_text"})
"""Types whose files often name a wrong class, so the registered one is taken."""

_ALWAYS_AS_FILED = frozenset({"internlm2", "step3_vl", "step3p7", "unlimited-ocr", "unlimited_ocr"})
"""Of vLLM 0.32 (`tokenizers/registry.py`)."""


def tokenizer_class(model: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """The class, by config.json and tokenizer_config.json; `AS_FILED` for all that this page does not name."""
    model_type = model.get("model_type")
    named = str(config.get("tokenizer_class") or model.get("tokenizer_class") or "").removesuffix("Fast")
    registered = _REGISTERED.get(model_type) if isinstance(model_type, str) else None
    if model_type in _ALWAYS_AS_FILED:
        return AS_FILED
    remote_code = "auto_map" in config
    if named and registered and registered != named and not remote_code:
        if registered == AS_FILED:
            return AS_FILED
        chosen = registered if model_type in _CLASS_IS_WRONG else named
    else:
        chosen = named or registered or AS_FILED
    return chosen if chosen in _TYPES else AS_FILED
