"""Builds wgan_fast._C, the compiled extension; installs without it where no compiler is there.

``WGAN_FAST_EXTENSION=auto|require|skip`` (default ``auto``) says what a failed build means: a
warning, an error, or that none is tried. The CUDA sources are built where there is a GPU and a
toolkit. ``FORCE_CUDA=1`` builds them on a machine without a GPU, and makes every failure an error;
``TORCH_CUDA_ARCH_LIST`` chooses the architectures.
"""

import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup

MODE = os.environ.get("WGAN_FAST_EXTENSION", "auto")
FORCE_CUDA = os.environ.get("FORCE_CUDA", "0") == "1"
if MODE not in ("auto", "require", "skip"):
    sys.exit(f"WGAN_FAST_EXTENSION: expected auto, require or skip, got {MODE!r}")


def cuda_home() -> str | None:
    """The CUDA toolkit's folder, from nvcc itself: the one on PATH may be a wrapper script."""
    if named := os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH"):
        return named
    if not shutil.which("nvcc"):
        return None
    said = subprocess.run(["nvcc", "--dryrun", "none.cu"], capture_output=True, text=True).stderr
    top = re.search(r"TOP=(\S+)", said)
    return str(Path(top[1]).resolve()) if top else None


def cpu_flags() -> list[str]:
    """Compiler flags of the C++ sources; ATen's vector classes need the instruction set named."""
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    # wgan_fast.ops loads the extension only on a CPU that has these.
    capability = ["-DCPU_CAPABILITY=AVX2", "-DCPU_CAPABILITY_AVX2"] if x86 else []
    if sys.platform == "win32":
        return ["/O2", "/openmp", *(["/arch:AVX2"] if x86 else []), *capability]
    # No fused multiply-add that the source does not write: results must not depend on the compiler.
    # ATen's headers are full of pragmas for other compilers. Debug symbols would only add size.
    # pybind11's own types are hidden, and so must be what holds them.
    flags = ["-O3", "-g0", "-ffp-contract=off", "-fvisibility=hidden", "-Wall"]
    flags.append("-Wno-unknown-pragmas")
    if sys.platform == "linux":
        # Not given to the linker: the symbols must come from the OpenMP runtime that torch brings,
        # since a process with two of them has two pools of threads. On macOS the compiler has none.
        flags.append("-fopenmp")
    return [*flags, *(["-mavx2", "-mfma", "-mf16c"] if x86 else []), *capability]


def sources_in(folder: str) -> list[str]:
    """The files of ``folder`` to compile, in a fixed order."""
    return sorted(str(path) for path in Path(folder).iterdir() if path.suffix in (".cpp", ".cu"))


def cpu_extension() -> Extension:
    """The extension for CPUs."""
    from torch.utils.cpp_extension import CppExtension

    return CppExtension(
        "wgan_fast._C",
        [*sources_in("csrc"), *sources_in("csrc/cpu")],
        include_dirs=["csrc"],
        extra_compile_args={"cxx": cpu_flags()},
        # For the source distribution, which must hold what this build may not need.
        depends=sorted(str(path) for path in Path("csrc").rglob("*.*")),
    )


def cuda_extension() -> Extension:
    """The extension for CPUs and GPUs; RuntimeError where it cannot be built."""
    import torch
    from torch.utils.cpp_extension import CUDAExtension

    home = cuda_home()
    if home is None:
        raise RuntimeError("the CUDA toolkit is missing: no nvcc on PATH, CUDA_HOME is not set")
    if torch.version.cuda is None:
        raise RuntimeError(f"this PyTorch, {torch.__version__}, is not built for CUDA")
    if not torch.cuda.is_available():
        # torch asks the GPU for its architecture; PTX of the last one serves all later GPUs.
        os.environ.setdefault("TORCH_CUDA_ARCH_LIST", "8.0;9.0+PTX")
    architectures = re.sub(r"[; ]+", ",", os.environ.get("TORCH_CUDA_ARCH_LIST", "native"))
    for_cpu = cpu_extension()
    # A partial toolkit may lack headers or libraries that torch's CUDA wheels hold. What it has
    # comes first: CUDA's headers refuse a compiler of another version.
    wheels = Path(torch.__file__).parents[1] / f"nvidia/cu{torch.version.cuda.split('.')[0]}"
    return CUDAExtension(
        for_cpu.name,
        [*for_cpu.sources, *sources_in("csrc/cuda")],
        include_dirs=["csrc", str(Path(home) / "include"), str(wheels / "include")],
        library_dirs=[str(wheels / "lib")],
        define_macros=[("WGAN_FAST_CUDA", None)],
        extra_compile_args={
            "cxx": [*cpu_flags(), f'-DWGAN_FAST_CUDA_ARCHS="{architectures}"'],
            "nvcc": ["-O3", "-Xcompiler", "-Wno-unknown-pragmas"],
        },
        depends=for_cpu.depends,
    )


def extension_and_command() -> tuple[Extension, type]:
    """The extension module, and a build command that does with a failure what MODE says."""
    home = cuda_home()
    if home is not None:
        os.environ["CUDA_HOME"] = home  # torch looks for it once, when cpp_extension is imported
    # ninja's own default is more compilers than cores, each of which takes a gigabyte.
    os.environ.setdefault("MAX_JOBS", str(os.cpu_count() or 1))
    import torch
    from torch.utils.cpp_extension import BuildExtension

    def build_for_cpu_only(extension: Extension) -> None:
        # In place: setuptools has noted things on this object that a fresh one would lack.
        vars(extension).update(
            {
                name: value
                for name, value in vars(cpu_extension()).items()
                if name not in ("name", "depends")
            }
        )

    class BuildOrGoWithout(BuildExtension):
        def run(self) -> None:
            as_asked = self.inplace, self.compiler
            try:
                super().run()
            except (Exception, SystemExit) as error:
                self.inplace, self.compiler = as_asked  # setuptools changes both while it runs
                why = f"wgan_fast: the compiled extension could not be built: {error}"
                if MODE == "require" or FORCE_CUDA:
                    asked = "FORCE_CUDA=1" if FORCE_CUDA else "WGAN_FAST_EXTENSION=require"
                    raise SystemExit(f"{why}\n{asked} asks for it.") from error
                if any(source.endswith(".cu") for source in self.extensions[0].sources):
                    print(f"{why}\nTrying again without CUDA.", file=sys.stderr)
                    build_for_cpu_only(self.extensions[0])
                    self.run()
                    return
                self.extensions = []
                print(
                    f"{why}\nInstalling without it: everything works, on plain PyTorch; "
                    "`wgan-fast doctor` says more.",
                    file=sys.stderr,
                )

    with_cuda = FORCE_CUDA or (torch.cuda.is_available() and torch.version.cuda and home)
    return (cuda_extension() if with_cuda else cpu_extension()), BuildOrGoWithout


if MODE == "skip":
    setup()
else:
    extension, command = extension_and_command()
    setup(ext_modules=[extension], cmdclass={"build_ext": command})
