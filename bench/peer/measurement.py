"""Running something at a pace, and what is printed of it: the fields of `crates/bench/src/measurement.rs`."""

import json
import resource
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

import torch


#: Names on the command line, and in what is printed.
MODES = {"eager": "pytorch", "fused": "pytorch_fused", "compile": "pytorch_compile", "onnxruntime": "onnxruntime"}


@dataclass
class Settings:
    """What all cases share."""

    device: torch.device
    precision: str  # f32 or mixed: bf16 on the CPU, f16 on a GPU
    mode: str  # eager, fused, compile or onnxruntime
    arch: str
    window: int
    prototypes: int
    region: bool
    global_size: int
    local_size: int
    local_count: int
    batch: int
    runs: int
    warm_up: int
    paced: bool

    def autocast(self):
        dtype = torch.bfloat16 if self.device.type == "cpu" else torch.float16
        return torch.autocast(self.device.type, dtype=dtype, enabled=self.precision == "mixed")

    def compiled(self, module):
        # Each crop size is compiled for itself: a program for all sizes would be slower.
        return torch.compile(module, dynamic=False) if self.mode == "compile" else module


def status(field: str) -> int | None:
    """A figure of this process's memory, where the system is Linux."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(field)), None)


def forget_peak() -> None:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pass  # The peak is then the process's own.


def peak_bytes() -> int:
    return status("VmHWM:") or 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def wait(settings: Settings) -> None:
    if settings.device.type == "cuda":
        torch.cuda.synchronize()


def another(settings: Settings, times: list[float]) -> bool:
    """Whether there is another run. When somebody sets the pace, says that it is ready or how long the last run took, and waits for a line."""
    if not settings.paced:
        return len(times) < settings.runs
    print(json.dumps({"ms": times[-1]} if times else {"ready": True}), flush=True)
    return sys.stdin.readline() != ""


def measure(settings: Settings, case: str, build: Callable[[], Callable[[], object]]) -> dict:
    """Builds a case and runs what `build` gives."""
    forget_peak()
    if settings.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    base = status("VmRSS:")
    run = build()
    # The second and third run of a compiled step may still compile something.
    for _ in range(max(settings.warm_up, 3) if settings.mode == "compile" else settings.warm_up):
        run()
    wait(settings)
    times: list[float] = []
    while another(settings, times) or not times:
        started = time.perf_counter()
        run()
        wait(settings)
        times.append(1e3 * (time.perf_counter() - started))
    median = statistics.median(times)
    return description(settings, case) | {
        "runMs": times, "medianMs": median, "minMs": min(times), "maxMs": max(times), "imagesPerSecond": 1e3 * settings.batch / median,
        "baseBytes": base, "peakBytes": peak_bytes(),
        "deviceBytes": torch.cuda.max_memory_allocated() if settings.device.type == "cuda" else None,
    }


def peak_gflops(settings: Settings) -> float:
    """Rate of a large square product: the best of half a second, as `crates/bench/src/peak.rs` takes it."""
    n = 1024 if settings.device.type == "cpu" else 4096
    dtype = torch.float32 if settings.precision == "f32" else torch.bfloat16 if settings.device.type == "cpu" else torch.float16
    a, b = (torch.randn(n, n, device=settings.device, dtype=dtype) for _ in range(2))
    best, until = float("inf"), time.perf_counter() + 0.5
    while time.perf_counter() < until:
        started = time.perf_counter()
        a @ b
        wait(settings)
        best = min(best, time.perf_counter() - started)
    return 2 * n**3 / best / 1e9


def description(settings: Settings, case: str) -> dict:
    """What was measured; the figures are null."""
    nothing = ["runMs", "medianMs", "minMs", "maxMs", "imagesPerSecond", "gflop", "gflops", "plannedBytes", "baseBytes", "peakBytes", "deviceBytes"]
    device = "cpu" if settings.device.type == "cpu" else torch.cuda.get_device_name()
    return {
        "case": case, "tool": MODES[settings.mode], "device": device, "precision": settings.precision, "threads": torch.get_num_threads(), "batch": settings.batch,
    } | dict.fromkeys(nothing)
