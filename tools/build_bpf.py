#!/usr/bin/env python3
"""Compile bpf/*.bpf.c into build/bpf/*.bpf.o with clang, only what changed. `--force` compiles all."""

from __future__ import annotations

import argparse
import platform
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "bpf"
OUTPUT = ROOT / "build" / "bpf"
FLAGS = ["-g", "-O2", "-target", "bpf", "-mcpu=v3", "-Wall", "-Wextra", "-Werror", "-Wno-unused-function"]
MULTIARCH = {"x86_64": "x86_64-linux-gnu", "aarch64": "aarch64-linux-gnu"}


def find_clang() -> str:
    """The newest clang there is. 14 and older lack atomics and enum64 that the programs' BTF needs."""
    for name in ("clang-19", "clang-18", "clang-17", "clang-16", "clang-15", "clang"):
        path = shutil.which(name)
        if path:
            return path
    sys.exit("build_bpf: no clang found. Install one: apt-get install clang-19 llvm-19 libbpf-dev")


def is_current(target: Path, inputs: list[Path]) -> bool:
    return target.exists() and all(each.stat().st_mtime <= target.stat().st_mtime for each in inputs)


def compile_one(source: Path, output: Path, *, clang: str) -> Path:
    """Compile one object and strip what only a debugger reads; BTF stays."""
    target = output / (source.name.removesuffix(".c") + ".o")
    machine = MULTIARCH.get(platform.machine(), platform.machine())
    system = ["-idirafter", f"/usr/include/{machine}"]
    include = ["-I", str(SOURCES), "-I", str(SOURCES / "include"), *system]
    scratch = target.with_suffix(".tmp")
    subprocess.run([clang, *FLAGS, *include, "-c", str(source), "-o", str(scratch)], check=True)
    strip = shutil.which(Path(clang).name.replace("clang", "llvm-strip"))
    if strip:
        subprocess.run([strip, "--strip-debug", str(scratch)], check=True)
    scratch.replace(target)
    return target


def build(output: Path = OUTPUT, *, force: bool = False) -> list[Path]:
    """Bring every object up to date; returns their paths. Raises CalledProcessError with clang's words printed."""
    output.mkdir(parents=True, exist_ok=True)
    headers = [*SOURCES.rglob("*.h"), Path(__file__)]
    sources = sorted(SOURCES.glob("*.bpf.c"))
    targets = [output / (each.name.removesuffix(".c") + ".o") for each in sources]
    todo = [
        source
        for source, target in zip(sources, targets, strict=True)
        if force or not is_current(target, [source, *headers])
    ]
    if todo:
        clang = find_clang()
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda source: compile_one(source, output, clang=clang), todo))
    return targets


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--force", action="store_true")
    arguments.add_argument("--output", type=Path, default=OUTPUT)
    options = arguments.parse_args()
    try:
        for target in build(options.output, force=options.force):
            print(target)
    except subprocess.CalledProcessError as problem:
        sys.exit(problem.returncode)


if __name__ == "__main__":
    main()
