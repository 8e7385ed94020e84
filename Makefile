# Sets up its own environment in .venv; every other target works inside it.
PYTHON3 ?= python3
PYTHON := .venv/bin/python
CUDA_ARCH ?= 9.0

.PHONY: install demo test check bench cuda clean

install: .venv/installed

# torch comes first, so that the extension is compiled against it and not against a second copy.
.venv/installed: pyproject.toml setup.py $(wildcard csrc/*.cpp csrc/cpu/* csrc/cuda/*)
	test -x $(PYTHON) || $(PYTHON3) -m venv .venv
	$(PYTHON) -m pip install --quiet --upgrade pip
	$(PYTHON) -m pip install --quiet "torch>=2.9" "torchvision>=0.24" "setuptools>=77" ninja numpy
	$(PYTHON) -m pip install --quiet --no-build-isolation --editable ".[train,examples,dev]"
	$(PYTHON) -m wgan_fast doctor
	touch $@

# A WGAN-GP on 1,797 real digits, in minutes: smaller and faster-learning than the paper's defaults.
demo: install
	$(PYTHON) -m wgan_fast train --objective wgan-gp --data digits --steps 3500 --channels 32 \
	    --latent-dim 32 --batch-size 32 --n-critic 3 --critic-learning-rate 1e-3 \
	    --generator-learning-rate 1e-3

# Two processes; threads that wait leave their core to the other one.
test: install
	OMP_WAIT_POLICY=PASSIVE $(PYTHON) -m pytest --numprocesses 2

check: install
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports --no-cache
	.venv/bin/clang-format --dry-run --Werror $$(git ls-files 'csrc/*' 'tests/*.h' 'tests/*.cpp' 'tests/*.cu')

bench: install
	$(PYTHON) -m bench

# Compiles and links the extension with its CUDA sources; needs nvcc, not a GPU.
cuda: install
	FORCE_CUDA=1 TORCH_CUDA_ARCH_LIST="$(CUDA_ARCH)" $(PYTHON) setup.py build_ext \
	    --build-lib build/cuda --build-temp build/cuda-temp

clean:
	rm -rf .venv build dist *.egg-info wgan_fast/_C*.so .pytest_cache .mypy_cache .ruff_cache .benchmarks
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
