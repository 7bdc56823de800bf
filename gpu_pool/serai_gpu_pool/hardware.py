"""The devices of this machine: its CPU, and NVIDIA GPUs as NVML finds them. Loads no framework."""

import contextlib
import os
from importlib.util import find_spec

from serai_gpu_pool.frameworks.registry import FRAMEWORK_OF, missing
from serai_gpu_pool.scheduling.memory import DeviceSpec
from serai_gpu_pool.settings import SettingError

#: Of a GPU's free memory, what is left to runtimes that take some on nobody's account.
_KEPT_FREE = 0.05


def find_devices(wanted: str, cpu_budget_bytes: int) -> list[DeviceSpec]:
    """Those of `wanted` ("auto", or ids with commas), in that order. Raises SettingError for one that is not here."""
    found = {device.id: device for device in (*_gpus(), _cpu(cpu_budget_bytes))}
    if wanted == "auto":
        return list(found.values())
    ids = [one.strip() for one in wanted.split(",") if one.strip()]
    for id in ids:
        if id not in found:
            raise SettingError(f'--devices: there is no "{id}" here; found: {", ".join(found)}')
    if not ids:
        raise SettingError(f"--devices names none; found: {', '.join(found)}")
    return [found[id] for id in dict.fromkeys(ids)]


def _cpu(budget_bytes: int) -> DeviceSpec:
    installed = {FRAMEWORK_OF[format] for format in FRAMEWORK_OF if not missing(format)}
    return DeviceSpec("cpu", _cpu_name(), budget_bytes, frozenset(installed))


def _cpu_name() -> str:
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as file:
        for line in file:
            if line.startswith("model name"):
                return f"{line.split(':', 1)[1].strip()}, {os.cpu_count()} cores"
    return f"{os.cpu_count()} cores"


def _gpus() -> list[DeviceSpec]:
    """Every GPU that NVML lists, and that a framework here could use."""
    frameworks = _gpu_frameworks()
    if not frameworks or find_spec("pynvml") is None:
        return []
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []  # no driver, no GPU
    try:
        return [_gpu(pynvml, index, frameworks) for index in range(pynvml.nvmlDeviceGetCount())]
    finally:
        pynvml.nvmlShutdown()


def _gpu(pynvml, index: int, frameworks: frozenset[str]) -> DeviceSpec:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    name = pynvml.nvmlDeviceGetName(handle)
    budget = int(memory.free - _KEPT_FREE * memory.total)
    return DeviceSpec(f"cuda:{index}", str(name), max(budget, 0), frameworks)


def _gpu_frameworks() -> frozenset[str]:
    """Which of the installed frameworks were built for CUDA, told from packages without importing them."""
    found = set()
    if find_spec("torch") is not None and find_spec("nvidia") is not None:
        found.add("torch")
    if find_spec("onnxruntime") is not None and _has_distribution("onnxruntime-gpu"):
        found.add("onnx")
    return frozenset(found)


def _has_distribution(name: str) -> bool:
    from importlib.metadata import PackageNotFoundError, version

    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True
