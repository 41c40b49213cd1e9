"""Which pretrained model reads the items, what is trained of it, and how this machine runs it."""

import dataclasses

import torch

from utgrec.config import require
from utgrec.precision import uses_bf16

DTYPES = ("auto", "bfloat16", "float16", "float32")


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoraSettings:
    """Low-rank adapters on the language model (paper §4.1.3)."""

    rank: int = 8
    """Rank of each adapter."""
    alpha: int = 32
    """Adapters are scaled by alpha / rank."""
    dropout: float = 0.1
    """Dropout in front of each adapter."""
    targets: tuple[str, ...] = ()
    """Last names of the Linear layers that get one, such as q_proj; empty for all of them."""

    def __post_init__(self) -> None:
        require(self.rank >= 1, f"rank must be at least 1, got {self.rank}")
        require(self.alpha >= 1, f"alpha must be at least 1, got {self.alpha}")
        require(0 <= self.dropout < 1, f"dropout is in [0, 1), got {self.dropout}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class MachineSettings:
    """What changes how fast a tokenizer is made, but not what it becomes; never recorded."""

    cache: str = ""
    """Folder for picture features and latents; empty for `$UTGREC_CACHE`, else ~/.cache/utgrec."""
    cache_gib: float = 200.0
    """The cache is not filled beyond this (GiB)."""
    workers: int = 2
    """Processes that tokenize words and decode pictures; 0 does it in the process itself."""
    attention: str = ""
    """Attention of transformers (sdpa, eager, flash_attention_2 …); empty for what suits."""
    checkpointing: bool = False
    """Whether activations are computed again in the backward pass: less memory, a third slower."""
    compile: bool = False
    """Whether torch.compile compiles the layers of the language model."""
    liger: bool = False
    """Whether Liger's fused kernels replace those of the language model (needs liger-kernel)."""

    def __post_init__(self) -> None:
        require(self.cache_gib > 0, f"cache_gib must be above 0, got {self.cache_gib}")
        require(0 <= self.workers <= 256, f"workers is in 0 … 256, got {self.workers}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PretrainedBackboneConfig:
    """A model of transformers, by its name on the Hugging Face hub or by its folder."""

    name: str
    """Name on the hub, such as Qwen/Qwen2-VL-2B-Instruct, or a folder."""
    revision: str = "main"
    """Branch, tag or commit on the hub; a folder has none."""
    lora: LoraSettings | None = dataclasses.field(default_factory=LoraSettings)
    """Adapters to train; without, the language model stays as it is."""
    dtype: str = "auto"
    """Type of the model's own weights: bfloat16, float16, float32, or auto: bfloat16 where the
    device has instructions for it, else float32. All else is float32."""
    min_pixels: int = 3136
    """Smaller pictures are enlarged, where the family reads pictures of any size (pixels)."""
    max_pixels: int = 200_704
    """Larger pictures are made smaller there (pixels): 256 tokens of 28 × 28 for Qwen2-VL."""
    pictures: bool = True
    """Whether pictures are read; without, items go by their words alone."""
    machine: MachineSettings = dataclasses.field(default_factory=MachineSettings)
    """How this machine runs it."""

    def __post_init__(self) -> None:
        require(bool(self.name.strip()), "a backbone needs a name or a folder, got none")
        require(self.dtype in DTYPES, f"dtype is one of {', '.join(DTYPES)}, got {self.dtype!r}")
        require(
            1 <= self.min_pixels <= self.max_pixels,
            f"min_pixels is at least 1 and at most max_pixels, got {self.min_pixels} and "
            f"{self.max_pixels}",
        )

    def weights_dtype(self, device: torch.device) -> torch.dtype:
        """The type that the model's own weights have on a device."""
        if self.dtype == "auto":
            return torch.bfloat16 if uses_bf16("auto", device) else torch.float32
        dtype: torch.dtype = getattr(torch, self.dtype)
        return dtype
