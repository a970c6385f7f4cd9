"""How networks run on this machine: device, threads, memory."""

import ctypes
import ctypes.util
import sys

import torch

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4  # malloc.h of glibc


def tune_allocator() -> None:
    """Keep freed memory in the process, where the C library is glibc.

    By default glibc gives every large buffer back to the kernel and asks for it again at the next
    convolution; on a CPU that costs two thirds of the speed. No effect elsewhere, and none on results.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(ctypes.util.find_library("c")), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(M_TOP_PAD, 64 * 2**20)


def best_device() -> torch.device:
    """The GPU where there is one; its convolutions in full float32, or the promises of 1e-4 would not hold."""
    torch.backends.cudnn.allow_tf32 = False
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def to_network_input(image: torch.Tensor) -> torch.Tensor:
    """Stored uint8 (..., H, W) to the float32 -1..1 that all networks take: (x / 255 - 0.5) / 0.5."""
    return (image.float() / 255 - 0.5) / 0.5
