"""Installed as users install it: a wheel beside torch alone, beside Triton, and editable."""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from tests.harness import ROOT

# What a newcomer's first minute does; linear critics have penalties known in closed form.
FIRST_MINUTE = """
import torch, wgan_fast
weights = torch.tensor([3.0, 4.0], requires_grad=True)
penalty = wgan_fast.gradient_penalty(lambda x: x @ weights, torch.randn(8, 2), torch.randn(8, 2))
penalty.backward()
assert abs(penalty.item() - 16) < 1e-4, penalty
assert torch.allclose(weights.grad, torch.tensor([4.8, 6.4])), weights.grad
wgan_fast.clip_weights_([weights], 0.5)
assert weights.tolist() == [0.5, 0.5]
from wgan_fast.ops import status
print(wgan_fast.__file__, status())
"""


def closure(name: str, without: set[str]) -> set[str]:
    """The installed distributions that ``name`` needs, itself included."""
    found, waiting = set(), [name]
    while waiting:
        current = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if current in found or current in without:
            continue
        try:
            requires = importlib.metadata.requires(current) or []
        except importlib.metadata.PackageNotFoundError:
            continue  # for another platform or an extra
        found.add(current)
        waiting += [re.match(r"[\w.-]+", line)[0] for line in requires if "extra ==" not in line]
    return found


def environment(folder: Path, names: set[str]) -> Path:
    """A virtual environment that holds just these installed distributions, by symbolic links."""
    venv.create(folder, with_pip=False)
    (site_packages,) = folder.glob("lib/python*/site-packages")
    for name in names:
        for file in importlib.metadata.files(name):
            top = file.parts[0]
            link = site_packages / top
            if top not in ("..", "__pycache__") and not link.exists():
                link.symlink_to(importlib.metadata.distribution(name).locate_file(top))
    return folder / "bin" / "python"


def pip(*arguments: str, **environment: str) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", *arguments]
    done = subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def run(python: Path, code: str, cwd: Path) -> str:
    done = subprocess.run([python, "-c", code], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    """The sources alone, as git would check them out."""
    folder = tmp_path_factory.mktemp("tree")
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    ignore = shutil.ignore_patterns("__pycache__", "*.so")
    for name in ("wgan_fast", "kernels", "csrc"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignore)
    return folder


@pytest.fixture(scope="module")
def wheel(tree, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    options = ("--no-build-isolation", "--no-deps", "--wheel-dir", str(folder))
    pip("wheel", *options, str(tree), WGAN_FAST_EXTENSION="skip")
    return next(folder.glob("*.whl"))


def test_the_wheel_holds_the_packages_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert tops == {"wgan_fast", f"wgan_fast-{wheel.name.split('-')[1]}.dist-info"}
    in_wheel = {name for name in names if name.endswith(".py")}
    in_tree = {str(p.relative_to(ROOT)) for p in (ROOT / "wgan_fast").rglob("*.py")}
    in_tree |= {f"wgan_fast/{p.relative_to(ROOT)}" for p in (ROOT / "kernels").glob("*.py")}
    assert in_wheel == in_tree
    assert "wgan_fast/py.typed" in names


def test_beside_torch_alone(wheel, tmp_path):
    """No Triton, no compiler, no NumPy, none of the trainer's packages."""
    python = environment(tmp_path / "env", closure("torch", without={"triton"}))
    pip("--python", str(python), "install", "--no-deps", "--no-index", str(wheel))
    said = run(python, FIRST_MINUTE, tmp_path)
    assert str(tmp_path) in said
    assert "'gradient_norm_penalty': {'cpu': 'plain PyTorch', 'cuda': 'plain PyTorch'}" in said
    assert "triton is not installed" in said
    said = subprocess.run(
        [python, "-m", "wgan_fast", "train"], cwd=tmp_path, capture_output=True, text=True
    )
    assert said.returncode != 0
    assert "wgan-fast[train]" in said.stderr
    assert "Traceback" not in said.stderr


def test_beside_triton(wheel, tmp_path):
    pytest.importorskip("triton", reason="Triton is not installed")
    python = environment(tmp_path / "env", closure("torch", without=set()) | {"triton"})
    pip("--python", str(python), "install", "--no-deps", "--no-index", str(wheel))
    said = run(python, FIRST_MINUTE, tmp_path)
    assert "'gradient_norm_penalty': {'cpu': 'plain PyTorch', 'cuda': 'Triton'}" in said
    run(python, "import wgan_fast.kernels.interpolate as k; k.interpolate_kernel", tmp_path)
    run(python, "import importlib.util as u; assert u.find_spec('kernels') is None", tmp_path)


def test_editable(tree, tmp_path):
    """A change in the checkout is seen, in ``kernels/`` as well."""
    names = closure("torch", without=set()) | closure("setuptools", without=set())
    python = environment(tmp_path / "env", names)
    pip(
        "--python", str(python), "install", "--no-deps", "--no-index", "--no-build-isolation",
        "--editable", str(tree), WGAN_FAST_EXTENSION="skip",
    )  # fmt: skip
    assert str(tree / "wgan_fast") in run(python, FIRST_MINUTE, tmp_path)
    (tree / "kernels" / "probe.py").write_text("answer = 42\n")
    where = "import wgan_fast.kernels.probe as probe; print(probe.answer, probe.__file__)"
    assert run(python, where, tmp_path).split() == ["42", str(tree / "kernels" / "probe.py")]
