"""What a job sets for its whole process: threads, determinism, device."""

import ctypes
import hashlib
import os
import platform
import resource
import sys

import torch


def set_up_process(threads: int) -> torch.device:
    """Fix the thread count, turn deterministic algorithms on and TF32 off; give the device to work on.

    The device is the first GPU where there is one, else the CPU. Call it once, before any work, from a job's script.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is not deterministic without it
    torch.set_num_threads(threads)
    torch.set_deterministic_debug_mode("error")  # the other call imports torch's compiler, for a second
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = False
    _keep_freed_memory()
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _keep_freed_memory() -> None:
    """Let glibc keep what is freed: by default each step's tensors go back to the system and come again, page by page.

    That is a quarter of a training step's time on a CPU. Other C libraries have no such setting.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mmap_threshold, trim_threshold = -3, -1  # M_MMAP_THRESHOLD (at most 32 MiB), M_TRIM_THRESHOLD of malloc.h
        mallopt(mmap_threshold, 32 << 20)
        mallopt(trim_threshold, 512 << 20)


def make_generator(seed: int, purpose: str, device: torch.device | str) -> torch.Generator:
    """A generator of its own for each purpose (data, noise, dropout, …): no purpose shifts another's draws."""
    digest = hashlib.sha256(f"{seed}/{purpose}".encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:7]))


def device_name(device: torch.device) -> str:
    """What a device is: the GPU's name, or the machine's type."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()


def peak_memory_mb(device: torch.device) -> float:
    """Most memory used so far: of the GPU where there is one, else of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes there, in KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
