"""Every example runs as a user runs it, and what it claims of itself is so."""

import ast
import importlib.util
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

import wgan_fast
from tests.harness import ROOT

FOLDER = ROOT / "examples"
SCRIPTS = sorted(FOLDER.glob("*.py"))

# How many comparisons an example prints, and how far apart their two sides may be: float64 but for
# CTGAN's float32, the central differences of first_order, and float16 itself.
CLAIMS = {
    "conditional_digits": (1, 1e-9),
    "ctgan_table": (2, 1e-5),
    "ddp": (1, 1e-8),
    "flash_attention_critic": (1, 1e-3),
    "float16": (1, 3e-3),
    "inpainting": (1, 1e-9),
    "lightning_module": (1, 1e-9),
    "lstm_critic": (1, 1e-3),
    "several_tensors": (1, 1e-9),
    "signals": (1, 1e-9),
    "wgan": (1, 1e-9),
    "wgan_gp": (2, 1e-9),
}
NEEDS = {"ctgan_table": "ctgan", "lightning_module": "lightning", "ddp": "torch"}
NEEDS |= {"conditional_digits": "matplotlib", "signals": "matplotlib", "wgan_gp": "matplotlib"}
NEEDS |= {"inpainting": "matplotlib"}
PICTURES = ("conditional_digits", "inpainting", "signals", "wgan_gp")


def run(name, folder):
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", "2"] if name == "ddp" else []
    # One thread: the machine may be busy with the other tests.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"}
    if name not in ("ctgan_table", "lightning_module"):  # whose packages have warnings of their own
        environment["PYTHONWARNINGS"] = "error"
    path = os.environ.get("PYTHONPATH")
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), *([path] if path else [])])
    return subprocess.run(
        [sys.executable, *launcher, str(FOLDER / f"{name}.py"), "--smoke"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.fixture(scope="module")
def running(request, tmp_path_factory):
    """The examples that were asked for, two at a time: most of their time is torch's import."""
    here = [item for item in request.session.items if item.path == request.path]
    tests = [item.callspec.params for item in here if hasattr(item, "callspec")]
    names = [test["name"] for test in tests if test.get("name") in CLAIMS]
    folders = {name: tmp_path_factory.mktemp(name) for name in names}
    with ThreadPoolExecutor(2) as pool:
        yield {name: (pool.submit(run, name, folders[name]), folders[name]) for name in names}


@pytest.mark.parametrize("name", CLAIMS)
def test_runs_and_keeps_its_claim(name, running):
    package = NEEDS.get(name, "torch")
    if importlib.util.find_spec(package) is None:
        pytest.skip(f'{package} is not installed: pip install "wgan-fast[examples]"')
    process, folder = running[name]
    done = process.result()
    assert done.returncode == 0, done.stderr
    claims = re.findall(r": (\d\.\de[+-]\d\d) (?:of its norm )?apart", done.stdout)
    count, allowed = CLAIMS[name]
    assert len(claims) == count, done.stdout
    assert max(map(float, claims)) < allowed, done.stdout
    if name in PICTURES:
        (picture,) = folder.iterdir()
        assert picture.read_bytes().startswith(b"\x89PNG")
    if name == "ctgan_table":
        assert re.search(r"^speed-up of fit: \d+\.\d\d \(median of 1\)$", done.stdout, re.M)
    if name == "flash_attention_critic":  # else there would be nothing to show
        assert "is not implemented" in done.stdout


def test_every_example_is_tested_and_in_the_table():
    assert [path.stem for path in SCRIPTS] == sorted(CLAIMS)
    table = (FOLDER / "README.md").read_text()
    for path in SCRIPTS:
        assert f"[`{path.name}`]({path.name})" in table


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_uses_the_public_names_alone(path):
    source = path.read_text()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            assert not (node.module or "").startswith("wgan_fast"), node.module
        if isinstance(node, ast.Import):
            assert not any(name.name.startswith("wgan_fast.") for name in node.names)
        if isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "wgan_fast":
            assert node.attr in wgan_fast.__all__
    assert len(source.splitlines()) <= 120
