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
    _leave_the_compiler_out()
    _keep_freed_memory()
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _leave_the_compiler_out() -> None:
    """Let torch's optimizers work without torch.compile, which nothing here calls.

    They import all of it, some 900 files, to tell it at every step that it need not look at them: 2 s of CPU
    time in every job, and more where the files lie on a network. What they compute stays as it is. An optimizer that
    is not built as those of torch 2.14 are is left alone, and does import it.
    """
    for kind in (each for each in vars(torch.optim).values() if isinstance(each, type)):
        for name, method in list(vars(kind).items()):
            code, inner = getattr(method, "__code__", None), getattr(method, "__wrapped__", None)
            if code is None or inner is None:
                continue
            if code.co_filename == torch._compile.__file__:
                inner.__dynamo_disable = inner  # where its wrapper keeps what torch.compile would have made of it
            elif name == "step" and code.co_name == "_use_grad":
                setattr(kind, name, torch.no_grad()(inner))


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
