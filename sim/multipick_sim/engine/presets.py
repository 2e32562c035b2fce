"""Named pods: a model on GPUs, as coefficients of the cost model and as the blocks that fit into what memory is left.

Peak figures are the vendors' (dense BF16, one direction of NVLink). The shares of the peak that an engine reaches are
round figures of the order that vLLM shows in practice, not fits: they move absolute times, hardly the order of
policies. Model shapes are from each model's `config.json`.
"""

from dataclasses import dataclass

from multipick_sim.engine.costs import Costs
from multipick_sim.engine.values import Limits

GIB = 1 << 30
BYTES_PER_VALUE = 2  # weights, keys and values in BF16

COMPUTE_SHARE = 0.5  # of peak FLOP/s, in large matrix products and in attention
BANDWIDTH_SHARE = 0.8  # of peak bandwidth, of memory and of the links
FIXED_S = 0.001  # scheduling, launch and sampling of one step
ALL_REDUCE_S = 10e-6  # latency of one all-reduce; there are two a layer
MEMORY_SHARE = 0.9  # vLLM's long-time default gpu_memory_utilization
ACTIVATIONS_BYTES = 2 * GIB  # a GPU: activations of the largest step, CUDA graphs and the runtime


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU, and vLLM's defaults on it."""

    memory: float  # bytes that the driver reports
    flops: float
    bandwidth: float  # bytes/s
    link: float  # bytes/s to the other GPUs, one direction
    max_num_batched_tokens: int
    max_num_seqs: int


@dataclass(frozen=True, slots=True)
class Model:
    """The shape of a dense transformer with grouped-query attention."""

    params: float
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    max_model_len: int

    @property
    def kv_bytes_per_token(self) -> int:
        """Keys and values of one token in all layers."""
        return 2 * self.layers * self.kv_heads * self.head_dim * BYTES_PER_VALUE


@dataclass(frozen=True, slots=True)
class Preset:
    """`gpus` GPUs of one kind that serve one model together, by tensor parallelism."""

    gpu: Gpu
    model: Model
    gpus: int = 1

    def costs(self) -> Costs:
        """The coefficients of the cost model."""
        flops = self.gpus * self.gpu.flops * COMPUTE_SHARE
        bandwidth = self.gpus * self.gpu.bandwidth * BANDWIDTH_SHARE
        model = self.model
        reduces = 2 * model.layers if self.gpus > 1 else 0
        # A ring sends 2 (n-1)/n of the data over each link.
        reduced_bytes = reduces * model.hidden * BYTES_PER_VALUE * 2 * (self.gpus - 1) / self.gpus
        return Costs(
            fixed_s=FIXED_S + reduces * ALL_REDUCE_S,
            weights_s=model.params * BYTES_PER_VALUE / bandwidth,
            token_s=2 * model.params / flops,
            exchange_s=reduced_bytes / (self.gpu.link * BANDWIDTH_SHARE) if reduces else 0.0,
            pair_s=4 * model.layers * model.heads * model.head_dim / flops,
            context_s=model.kv_bytes_per_token / bandwidth,
        )

    def limits(self, block_size: int = 16) -> Limits:
        """vLLM's settings on this hardware; the pool takes what memory is left beside weights and activations."""
        free = self.gpus * (self.gpu.memory * MEMORY_SHARE - ACTIVATIONS_BYTES) - self.model.params * BYTES_PER_VALUE
        blocks = int(free // (self.model.kv_bytes_per_token * block_size))
        return Limits(
            num_gpu_blocks=blocks,
            block_size=block_size,
            max_num_seqs=self.gpu.max_num_seqs,
            max_num_batched_tokens=self.gpu.max_num_batched_tokens,
            max_model_len=min(self.model.max_model_len, (blocks - 1) * block_size),
        )


# NVIDIA H100 and H200 data sheets (SXM: 989 TFLOP/s BF16, 3.35 and 4.8 TB/s, NVLink 900 GB/s both ways), A10 data
# sheet (125 TFLOP/s, 600 GB/s, PCIe 4.0 x16), A100 80GB SXM (312 TFLOP/s, 2.04 TB/s, NVLink 600 GB/s both ways).
# Budgets: vLLM's defaults for `vllm serve` by memory size and, for the A100, by name.
H100 = Gpu(79.2 * GIB, 989e12, 3.35e12, 450e9, max_num_batched_tokens=8192, max_num_seqs=1024)
H200 = Gpu(139.8 * GIB, 989e12, 4.8e12, 450e9, max_num_batched_tokens=8192, max_num_seqs=1024)
A100 = Gpu(79.2 * GIB, 312e12, 2.04e12, 300e9, max_num_batched_tokens=2048, max_num_seqs=256)
A10 = Gpu(22.5 * GIB, 125e12, 600e9, 32e9, max_num_batched_tokens=2048, max_num_seqs=256)

LLAMA_3_1_8B = Model(8.03e9, 32, 4096, 32, 8, 128, max_model_len=131_072)
LLAMA_3_3_70B = Model(70.6e9, 80, 8192, 64, 8, 128, max_model_len=131_072)
QWEN_2_5_7B = Model(7.62e9, 28, 3584, 28, 4, 128, max_model_len=32_768)
QWEN_3_32B = Model(32.8e9, 64, 5120, 64, 8, 128, max_model_len=40_960)

PRESETS = {
    "h100-llama-3.1-8b": Preset(H100, LLAMA_3_1_8B),
    "a100-llama-3.1-8b": Preset(A100, LLAMA_3_1_8B),
    "h100-llama-3.3-70b-tp8": Preset(H100, LLAMA_3_3_70B, gpus=8),
    "h100-qwen3-32b-tp2": Preset(H100, QWEN_3_32B, gpus=2),
    "h200-llama-3.3-70b-tp4": Preset(H200, LLAMA_3_3_70B, gpus=4),
    "a10-qwen2.5-7b": Preset(A10, QWEN_2_5_7B),
}
DEFAULT_PRESET = "h100-llama-3.1-8b"
