"""Where bf16 pays: what a device multiplies natively, and a function's Jacobian at half the price."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def native_bf16(device: torch.device) -> bool:
    """Whether the device multiplies bf16 in hardware: AMX, AVX512-BF16, tensor cores since Ampere."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def in_bf16(f: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """f with its matrix products and convolutions in bf16 (three digits), on tensors of single precision as before."""

    def rough(x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, dtype=torch.bfloat16):
            return f(x).to(x.dtype)

    return rough
