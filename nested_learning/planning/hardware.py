"""Peak FLOP/s, memory and price of devices; the fraction of the peak that a run reaches is its MFU."""

import re
from typing import NamedTuple


class GPU(NamedTuple):
    """A GPU: its name in PEAKS, its memory in bytes, and its price in US dollars an hour."""

    name: str
    memory_bytes: float
    dollars_per_hour: float


# approximate rental prices per hour in 2026, an assumption that plan.price replaces
GPUS = {
    "b200": GPU("B200", 180e9, 5.0),
    "h200": GPU("H200", 141e9, 3.5),
    "h100": GPU("H100", 80e9, 2.5),
    "a100": GPU("A100", 80e9, 1.5),
    "l40s": GPU("L40S", 48e9, 1.0),
    "l4": GPU("L4", 24e9, 0.7),
    "4090": GPU("4090", 24e9, 0.5),
    "mi300x": GPU("MI300X", 192e9, 3.0),
}


# dense FLOP/s (without sparsity) with float32 accumulation, from the makers' data sheets; the first pattern found in a
# device's name applies. float32 is for the ordinary units, tfloat32 for float32 on matrix units
PEAKS: list[tuple[str, dict[str, float]]] = [
    (r"B200", {"float32": 75e12, "tfloat32": 1125e12, "bfloat16": 2250e12, "float16": 2250e12, "float8": 4500e12}),
    (r"H20\b", {"float32": 44e12, "tfloat32": 74e12, "bfloat16": 148e12, "float16": 148e12, "float8": 296e12}),
    (r"H100.*PCIe", {"float32": 51e12, "tfloat32": 378e12, "bfloat16": 756e12, "float16": 756e12, "float8": 1513e12}),
    (r"H100.*NVL", {"float32": 60e12, "tfloat32": 418e12, "bfloat16": 835e12, "float16": 835e12, "float8": 1671e12}),
    (
        r"H100|H200|GH200",
        {"float32": 67e12, "tfloat32": 494.7e12, "bfloat16": 989.4e12, "float16": 989.4e12, "float8": 1978.9e12},
    ),
    (r"A100", {"float32": 19.5e12, "tfloat32": 156e12, "bfloat16": 312e12, "float16": 312e12}),
    (r"A10G", {"float32": 35e12, "tfloat32": 35e12, "bfloat16": 70e12, "float16": 70e12}),
    (r"L40S", {"float32": 91.6e12, "tfloat32": 183e12, "bfloat16": 362e12, "float16": 362e12, "float8": 733e12}),
    (r"\bL4\b", {"float32": 30.3e12, "tfloat32": 60e12, "bfloat16": 121e12, "float16": 121e12, "float8": 242.5e12}),
    (r"4090", {"float32": 82.6e12, "tfloat32": 82.6e12, "bfloat16": 165.2e12, "float16": 165.2e12, "float8": 330.3e12}),
    (r"3090\b", {"float32": 35.6e12, "tfloat32": 35.6e12, "bfloat16": 71e12, "float16": 71e12}),
    (r"V100", {"float32": 15.7e12, "float16": 125e12}),
    (r"\bT4\b", {"float32": 8.1e12, "float16": 65e12}),
    (r"MI300X", {"float32": 163.4e12, "bfloat16": 1307.4e12, "float16": 1307.4e12, "float8": 2614.9e12}),
]


def peak(device_name: str, dtype: str) -> float | None:
    """Return the peak FLOP/s of a device in `dtype`; None where it is unknown, as for any CPU.

    `device_name`: as its driver reports it (`torch.cuda.get_device_name()`), or a part of that such as "H100"; `dtype`:
    float32, tfloat32, bfloat16, float16 or float8. Source: the makers' data sheets.
    """
    found = next((by_dtype for pattern, by_dtype in PEAKS if re.search(pattern, device_name)), None)
    return None if found is None or dtype not in found else found[dtype]
