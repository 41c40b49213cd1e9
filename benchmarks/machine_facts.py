"""What a figure was measured on; read by the benchmarks that write results."""

import os
import platform
from pathlib import Path
from typing import Any

import psutil
import torch
import transformers

from utgrec.precision import multiplies_bf16


def machine() -> dict[str, Any]:
    """Processor, cores, load, versions; the GPU's name if there is one."""
    name = platform.processor()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next((line.split(": ")[1] for line in lines if line.startswith("model name")), name)
    facts: dict[str, Any] = {
        "cpu": name,
        "cores": os.cpu_count(),
        "multiplies": "bf16" if multiplies_bf16("cpu") else "fp32",
        "threads": torch.get_num_threads(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "load": round(os.getloadavg()[0], 1),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
    }
    if torch.cuda.is_available():
        facts["gpu"] = torch.cuda.get_device_name()
    return facts
