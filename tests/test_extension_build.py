"""What setup.py makes of a machine without a compiler, and of one with the CUDA toolkit."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]

# The hooks of PEP 517 and PEP 660 that pip calls in a process of their own, without pip's minute.
BUILD_WHEEL = "from setuptools import build_meta; print(build_meta.build_wheel('wheels'))"
BUILD_EDITABLE = "from setuptools import build_meta; print(build_meta.build_editable('wheels'))"
BUILD_SDIST = "from setuptools import build_meta; print(build_meta.build_sdist('wheels'))"

NO_COMPILER = {"CC": "/nonexistent/cc", "CXX": "/nonexistent/c++"}

FIRST_CALL = """
import torch, wgan_fast
print(wgan_fast.__file__)
mixed = wgan_fast.interpolate(torch.ones(2, 3), torch.zeros(2, 3), torch.tensor([0.25, 1.0]))
assert mixed.tolist() == [[0.25] * 3, [1.0] * 3], mixed
"""

# With a CUDA build of torch the module loads where no GPU is, and registers its CUDA kernels.
LOAD = """
import importlib.util, sys, torch
spec = importlib.util.spec_from_file_location("wgan_fast._C", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
library = torch.library.Library("wgan_fast", "DEF")
library.define("clip_weights_(Tensor(a!)[] parameters, float clip_value) -> ()")
for key in ("CPU", "CUDA"):
    assert torch._C._dispatch_has_kernel_for_dispatch_key("wgan_fast::clip_weights_", key), key
info = module.build_info()
assert info["cuda"] is not None and info["cuda_archs"] == "9.0", info
"""


def python(code, cwd, *arguments, **environment):
    """Run Python code; what steers a build is ``environment``, not the tests' own."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name not in ("WGAN_FAST_EXTENSION", "FORCE_CUDA", "TORCH_CUDA_ARCH_LIST", "CC", "CXX")
    }
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=cwd,
        env={**inherited, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def packed(folder):
    """The names in the wheel that a build left in ``folder``."""
    (wheel,) = (folder / "wheels").glob("*.whl")
    return zipfile.ZipFile(wheel)


@pytest.fixture
def sources(tmp_path):
    """A copy of the source tree without anything built."""
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("wgan_fast", "kernels", "csrc"):
        built = shutil.ignore_patterns("__pycache__", "*.so")
        shutil.copytree(ROOT / name, tmp_path / name, ignore=built)
    (tmp_path / "wheels").mkdir()
    return tmp_path


@pytest.mark.parametrize("environment", [NO_COMPILER, {"PATH": "/nonexistent"}], ids=str)
def test_installs_without_a_compiler(sources, environment):
    done = python(BUILD_WHEEL, sources, **environment)
    assert done.returncode == 0, done.stdout
    assert "could not be built" in done.stdout
    assert "Installing without it" in done.stdout
    wheel = packed(sources)
    assert "wgan_fast/__init__.py" in wheel.namelist()
    assert not [name for name in wheel.namelist() if name.endswith((".so", ".pyd"))]
    installed = sources / "installed"
    wheel.extractall(installed)
    done = python(FIRST_CALL, installed, PYTHONPATH=str(installed))
    assert done.returncode == 0, done.stdout
    assert str(installed) in done.stdout


def test_installs_editable_without_a_compiler(sources):
    done = python(BUILD_EDITABLE, sources, **NO_COMPILER)
    assert done.returncode == 0, done.stdout
    assert "Installing without it" in done.stdout
    assert not list(sources.rglob("*.so"))


def test_a_broken_cuda_toolkit_does_not_cost_the_cpu_operators(sources):
    """The second try must get as far as the compiler, which is not there either."""
    if torch.version.cuda is None:
        pytest.skip("this PyTorch is not built for CUDA")
    with_gpu = "import torch; torch.cuda.is_available = lambda: True; " + BUILD_WHEEL
    toolkit = {"CUDA_HOME": "/nonexistent", "TORCH_CUDA_ARCH_LIST": "9.0"}
    done = python(with_gpu, sources, **toolkit, **NO_COMPILER)
    assert done.returncode == 0, done.stdout
    first, again = done.stdout.split("Trying again without CUDA.")
    assert "/nonexistent/bin/nvcc" in first
    assert "/nonexistent/c++" in again
    assert ".cu" not in again
    assert "Installing without it" in again


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({**NO_COMPILER, "WGAN_FAST_EXTENSION": "require"}, "WGAN_FAST_EXTENSION=require asks"),
        ({**NO_COMPILER, "FORCE_CUDA": "1", "PATH": "/nonexistent"}, "CUDA toolkit is missing"),
        ({"WGAN_FAST_EXTENSION": "maybe"}, "expected auto, require or skip, got 'maybe'"),
    ],
    ids=["require", "cuda", "misspelt"],
)
def test_says_why_it_fails(sources, environment, message):
    done = python(BUILD_WHEEL, sources, **environment)
    assert done.returncode != 0
    assert message in done.stdout
    assert not list((sources / "wheels").iterdir())


def test_skip_tries_nothing(sources):
    done = python(BUILD_WHEEL, sources, WGAN_FAST_EXTENSION="skip", **NO_COMPILER)
    assert done.returncode == 0, done.stdout
    assert "could not be built" not in done.stdout


def test_source_distribution_holds_every_source(sources):
    done = python(BUILD_SDIST, sources, **NO_COMPILER)
    assert done.returncode == 0, done.stdout
    shutil.unpack_archive(next((sources / "wheels").glob("*.tar.gz")), sources / "unpacked")
    (unpacked,) = (sources / "unpacked").iterdir()
    for source in (sources / "csrc").rglob("*.*"):
        assert (unpacked / source.relative_to(sources)).exists(), source


@pytest.mark.slow
def test_cuda_builds_and_loads_without_a_gpu():
    """The command of ``make cuda``, in its folders: what has not changed is not compiled again."""
    if shutil.which("nvcc") is None:
        pytest.skip("no CUDA compiler: nvcc is not on PATH")
    if torch.version.cuda is None:
        pytest.skip("this PyTorch is not built for CUDA")
    command = "import runpy, sys; sys.argv[0] = 'setup.py'; runpy.run_path('setup.py')"
    folders = ("--build-lib", "build/cuda", "--build-temp", "build/cuda-temp")
    chosen = {"FORCE_CUDA": "1", "TORCH_CUDA_ARCH_LIST": "9.0"}
    done = python(command, ROOT, "build_ext", *folders, **chosen)
    assert done.returncode == 0, done.stdout
    (module,) = (ROOT / "build" / "cuda" / "wgan_fast").glob("_C*")
    done = python(LOAD, ROOT, str(module))
    assert done.returncode == 0, done.stdout
