"""Builds wgan_fast._C, the compiled extension, where a compiler is there; installs without it otherwise.

``WGAN_FAST_EXTENSION=auto|require|skip`` (default ``auto``) says what a failed build means: a
warning, an error, or that none is tried. ``FORCE_CUDA=1`` adds the CUDA sources on a machine without
a GPU, and makes every failure an error; ``TORCH_CUDA_ARCH_LIST`` chooses the architectures.
"""

import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import setup

MODE = os.environ.get("WGAN_FAST_EXTENSION", "auto")
FORCE_CUDA = os.environ.get("FORCE_CUDA", "0") == "1"
if MODE not in ("auto", "require", "skip"):
    sys.exit(f"WGAN_FAST_EXTENSION: expected auto, require or skip, got {MODE!r}")


def cuda_home():
    """The CUDA toolkit's folder; asks nvcc itself, since the nvcc on PATH may be a wrapper script."""
    if named := os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH"):
        return named
    if not shutil.which("nvcc"):
        return None
    said = subprocess.run(["nvcc", "--dryrun", "none.cu"], capture_output=True, text=True).stderr
    top = re.search(r"TOP=(\S+)", said)
    return str(Path(top[1]).resolve()) if top else None


def cpu_flags():
    """Compiler flags of the C++ sources; ATen's vector classes need the instruction set named."""
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    # wgan_fast.ops loads the extension only on a CPU that has these.
    capability = ["-DCPU_CAPABILITY=AVX2", "-DCPU_CAPABILITY_AVX2"] if x86 else []
    if sys.platform == "win32":
        return ["/O2", "/openmp", *(["/arch:AVX2"] if x86 else []), *capability]
    # No fused multiply-add that the source does not write: a result must not depend on the compiler.
    # ATen's headers are full of pragmas for other compilers. Debug symbols would double the time.
    flags = ["-O3", "-g0", "-ffp-contract=off", "-Wall", "-Wno-unknown-pragmas"]
    if sys.platform == "linux":
        # Not given to the linker: the symbols must come from the OpenMP runtime that torch brings,
        # since a process with two of them has two pools of threads. On macOS the compiler has none.
        flags.append("-fopenmp")
    return [*flags, *(["-mavx2", "-mfma", "-mf16c"] if x86 else []), *capability]


def extension():
    """The one extension module, with its CUDA sources when they are asked for or a GPU is here."""
    if (home := cuda_home()) is not None:
        os.environ["CUDA_HOME"] = home
    import torch
    from torch.utils import cpp_extension

    sources = ["csrc/library.cpp", *sorted(str(p) for p in Path("csrc/cpu").glob("*.cpp"))]
    with_cuda = FORCE_CUDA or (torch.cuda.is_available() and home is not None)
    if FORCE_CUDA and home is None:
        raise RuntimeError("FORCE_CUDA=1 needs the CUDA toolkit: nvcc is not on PATH, CUDA_HOME is not set")
    if not with_cuda:
        return cpp_extension.CppExtension(
            "wgan_fast._C", sources, include_dirs=["csrc"], extra_compile_args={"cxx": cpu_flags()}
        )
    sources += sorted(str(p) for p in Path("csrc/cuda").glob("*.cu"))
    # A partial toolkit lacks the math libraries' headers; torch's CUDA wheels hold them.
    wheels = Path(torch.__file__).parent.parent / "nvidia" / f"cu{torch.version.cuda.split('.')[0]}"
    return cpp_extension.CUDAExtension(
        "wgan_fast._C",
        sources,
        include_dirs=["csrc", str(wheels / "include")],
        library_dirs=[str(wheels / "lib")],
        define_macros=[("WGAN_FAST_CUDA", None)],
        extra_compile_args={"cxx": cpu_flags(), "nvcc": ["-O3", "--expt-relaxed-constexpr"]},
    )


def build_command():
    """BuildExtension, whose failure is a warning under ``auto``."""
    from torch.utils.cpp_extension import BuildExtension

    class OptionalBuildExtension(BuildExtension):
        def run(self):
            try:
                super().run()
            except (Exception, SystemExit) as error:
                if MODE == "require" or FORCE_CUDA:
                    raise
                self.extensions = []
                print(
                    f"wgan_fast: the compiled extension could not be built ({error}); installing "
                    "without it. Everything works, on plain PyTorch; `wgan-fast doctor` says more.",
                    file=sys.stderr,
                )

    return OptionalBuildExtension


if MODE == "skip":
    setup()
else:
    setup(ext_modules=[extension()], cmdclass={"build_ext": build_command()})
