"""Whether a machine computes bf16 matrix products in hardware."""

from __future__ import annotations

import torch


def fast_bf16(device_type: str) -> bool:
    """True where bf16 is faster than fp32.

    CPUs without AVX512-BF16 or AMX emulate it, some fifty times slower than fp32; GPUs have it from Ampere on.

    Args:
        device_type: ``"cuda"`` or ``"cpu"``.
    """
    if device_type == "cuda":
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    # Named with an underscore in torch 2.13; a release without them counts as a CPU without bf16.
    return any(getattr(torch.cpu, name, bool)() for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"))
