"""What the machine is, and how the mathematics of a run is carried out on it."""

import contextlib
import logging
import os
import resource
import sys
from dataclasses import dataclass
from typing import Any

import psutil
import torch
from torch import Tensor
from torch.nn import functional as F

from mmnet.config import Hardware
from mmnet.errors import UserError


log = logging.getLogger(__name__)

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Machine:
    """The machine as chosen: nothing left to `auto`."""

    device: torch.device
    precision: str
    pin_memory: bool

    def autocast(self) -> contextlib.AbstractContextManager[None]:
        """Mixed precision around a forward pass; weights stay in fp32."""
        if self.precision == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, DTYPES[self.precision])

    def scaler(self) -> torch.amp.GradScaler:
        """Loss scaling for fp16; passes everything through otherwise."""
        return torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")


def choose(hardware: Hardware) -> Machine:
    """Settle device and precision, set threads, and say what was picked.

    Raises UserError when the config names a device that is not there: never a silent
    CPU run.
    """
    if hardware.device == "cuda" and not torch.cuda.is_available():
        raise UserError(
            "hardware.device=cuda: torch sees no CUDA device here"
            f"{'' if torch.version.cuda else ' (this torch was built without CUDA)'}"
            "; hardware=auto or hardware=cpu would work"
        )
    device, precision = planned(hardware)
    if device == "cuda" and precision == "bf16" and not fast_bf16("cuda"):
        raise UserError(
            "hardware.precision=bf16: this GPU has no bf16; hardware.precision=fp16 would work"
        )
    if hardware.threads is not None:
        torch.set_num_threads(hardware.threads)
    if device == "cpu" and precision != "fp32":
        attend_in_fp32()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()  # an earlier job of this process had its own
    log.info("hardware: %s, %s", name(device), precision)
    pin = device == "cuda" if hardware.pin_memory == "auto" else hardware.pin_memory
    if pin and device != "cuda":
        raise UserError(
            "hardware.pin_memory=true: memory is pinned for copies to a GPU, and this run is on "
            f"{device}; auto or false would work"
        )
    return Machine(torch.device(device), precision, pin)


def planned(hardware: Hardware) -> tuple[str, str]:
    """The device and the precision that a run would take, on hardware that need not be here."""
    device = hardware.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    precision = hardware.precision
    if precision == "auto":
        precision = "bf16" if fast_bf16(device) else "fp32"
    return device, precision


def capacity(hardware: Hardware) -> tuple[str, int]:
    """Whose memory a run would use, and how many bytes that is."""
    if hardware.memory_gb is not None:
        return f"hardware.memory_gb={hardware.memory_gb:g}", int(hardware.memory_gb * 1e9)
    if hardware.device != "cpu" and torch.cuda.is_available():
        return torch.cuda.get_device_name(), torch.cuda.get_device_properties(0).total_memory
    return "this machine's free memory", psutil.virtual_memory().available


def fast_bf16(device: str) -> bool:
    """Whether bf16 has instructions of its own here; emulated, it is slower than fp32."""
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def name(device: str) -> str:
    if device == "cuda":
        return torch.cuda.get_device_name()
    return f"cpu ({torch.get_num_threads()} of {os.cpu_count()} cores)"


def memory_mb(device: torch.device) -> float:
    """Peak memory so far, in MB: of the GPU's allocator, or resident of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, kilobytes elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


_override: Any = None  # untyped in torch


def attend_in_fp32() -> None:
    """Let autocast on the CPU leave attention in fp32.

    torch's fused attention for the CPU is several times slower in bf16 than in fp32 in its
    backward pass, which made up 30 % of a bf16 step. Only what runs under CPU autocast is
    concerned; the result is handed on in autocast's dtype, as before.
    """
    global _override
    if _override is None:
        library: Any = torch.library
        _override = library.Library("aten", "IMPL", "AutocastCPU")
        _override.impl("scaled_dot_product_attention", _attention)


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    if attn_mask is not None and attn_mask.dtype != torch.bool:
        attn_mask = attn_mask.float()
    keys = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastCPU)
    with torch._C._ExcludeDispatchKeyGuard(keys):
        return F.scaled_dot_product_attention(
            query.float(),
            key.float(),
            value.float(),
            attn_mask,
            dropout_p,
            is_causal,
            scale=scale,
            enable_gqa=enable_gqa,
        ).to(torch.get_autocast_dtype("cpu"))
