"""The Triton kernels compile to machine code for sm_90a (Hopper), without a GPU.

Compilation runs in a process of its own: this one has Triton's interpreter switched on.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

SHARED_MEMORY_LIMIT = 232_448  # bytes a block may use on sm_90
DTYPES = {"x_ptr": "*bf16", "weight_ptr": "*bf16", "target_ptr": "*i64", "d_ptr": "*bf16", "softcap": "fp32"}
WITHOUT = {"bias_ptr", "softcap", "inverse_temperature_ptr"}


def compile_kernel(kernel: Any, const: dict[str, Any], warps: int, stages: int) -> dict[str, Any]:
    """Compile for sm_90a; returns what the machine code needs."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource
    from triton.compiler import compile as build

    names = kernel.arg_names
    sig = {
        n: "constexpr" if n in const else DTYPES.get(n, "*fp32" if n.endswith("_ptr") else "i32") for n in names
    }
    aligned = {(names.index(n),): [["tt.divisibility", 16]] for n, kind in sig.items() if kind[0] == "*"}
    source = ASTSource(
        fn=kernel, signature=sig, constexprs={(names.index(n),): v for n, v in const.items()}, attrs=aligned
    )
    options = {"num_warps": warps, "num_stages": stages}
    built = build(source, target=GPUTarget("cuda", 90, 32), options=options)
    return {
        "elf": built.asm["cubin"][:4] == b"\x7fELF",
        "wgmma": "wgmma.mma_async" in built.asm["ptx"],
        "tma": "cp.async.bulk.tensor" in built.asm["ptx"],
        "shared": built.metadata.shared,
        **usage(built.asm["ptx"]),
    }


def usage(ptx: str) -> dict[str, int]:
    """Registers and spilled bytes, as the assembler that comes with Triton counts them."""
    import triton

    tools = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "kernel.ptx"
        file.write_text(ptx)
        for tool in ("ptxas", "ptxas-blackwell"):  # newer PTX needs the newer one
            command = [str(tools / tool), "-v", "-arch=sm_90a", str(file), "-o", f"{folder}/kernel.cubin"]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode == 0:
                break
    log = done.stderr
    found = {"registers": r"Used (\d+) registers", "spill_stores": r"(\d+) bytes spill stores"}
    return {name: int(re.search(pattern, log)[1]) for name, pattern in found.items()}  # type: ignore[index]


def compile_all() -> dict[str, dict[str, Any]]:
    """Every kernel with all its options and with none."""
    from vertigym.kernels.triton_dlogits import dlogits_kernel
    from vertigym.kernels.triton_fold import fold_kernel
    from vertigym.kernels.triton_fused import (
        BLOCK_COLUMNS,
        BLOCK_HIDDEN,
        BLOCK_ROWS,
        STAGES,
        WARPS,
        fused_kernel,
    )

    none: dict[str, Any] = dict.fromkeys(WITHOUT)
    block = {"BLOCK": 1024}
    blocks = {"BLOCK_ROWS": BLOCK_ROWS, "BLOCK_COLUMNS": BLOCK_COLUMNS, "BLOCK_HIDDEN": BLOCK_HIDDEN}
    fused = {**blocks, "WIDE": False}
    return {
        "fold": compile_kernel(fold_kernel, block, 4, 3),
        "fold, no options": compile_kernel(fold_kernel, {**block, **none, "dot_ptr": None}, 4, 3),
        "dlogits": compile_kernel(dlogits_kernel, block, 4, 3),
        "dlogits, no options": compile_kernel(
            dlogits_kernel, {**block, **none, "h_ptr": None, "entropy_ptr": None}, 4, 3
        ),
        "fused": compile_kernel(fused_kernel, {**fused, "ENTROPY": True}, WARPS, STAGES),
        "fused, entropy": compile_kernel(fused_kernel, {**fused, **none, "ENTROPY": True}, WARPS, STAGES),
        "fused, no options": compile_kernel(fused_kernel, {**fused, **none, "ENTROPY": False}, WARPS, STAGES),
    }


def test_the_kernels_compile_for_hopper(tmp_path: Path) -> None:
    pytest.importorskip("triton")
    quiet = {"TRITON_CACHE_DIR": str(tmp_path), "TRITON_DEFAULT_FP_FUSION": "1"}
    env = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"} | quiet
    done = subprocess.run([sys.executable, __file__], env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    kernels = json.loads(done.stdout)
    print(json.dumps(kernels, indent=1))
    for name, needs in kernels.items():
        assert needs["elf"], name
        assert needs["shared"] <= SHARED_MEMORY_LIMIT, name
        assert needs["registers"] <= 255, name
        assert needs["wgmma"] == needs["tma"] == name.startswith("fused"), name
        # Triton 3.9 spills only in `fused` with bias, soft-cap and temperature at once; 3.6 a little more.
        assert needs["spill_stores"] <= (256 if name.startswith("fused") else 0), name


if __name__ == "__main__":
    print(json.dumps(compile_all()))
