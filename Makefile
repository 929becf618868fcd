# make train and make test do all the set-up there is; everything is installed into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: setup train test test-long coverage fuzz lint bench docs tensorboard lock clean

setup: $(INSTALLED)

$(INSTALLED): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' || \
		{ echo "Python 3.10 to 3.13 is needed, $(PYTHON) is $$($(PYTHON) --version): make PYTHON=python3.12 ..."; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

train: setup
	$(BIN)/python train.py --config configs/quickstart.yaml --overwrite
	$(BIN)/python evaluate.py --run runs/quickstart
	@echo
	@echo "TensorBoard's files: runs/quickstart/tensorboard  (make tensorboard shows them)"
	@echo "report:              runs/quickstart/evaluation/test/report.html"
	@echo "next, on IMDB:       $(BIN)/python train.py --config configs/imdb.yaml"

# Each worker takes up to 1.5 GB.
WORKERS := -n logical --maxprocesses 4 --dist worksteal

test: setup lint
	$(BIN)/python -m pytest $(WORKERS)

# One worker: these tests start several processes themselves, or measure time and memory.
test-long: setup
	$(BIN)/python -m pytest -m long

coverage: setup
	$(BIN)/python -m pytest $(WORKERS) --cov --cov-report=term

fuzz: setup
	$(BIN)/python -m tests.fuzz.run

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# IMDB=FOLDER takes the reviews of its train.parquet instead of synthetic ones.
bench: setup
	$(BIN)/python -m benchmarks.run $(if $(IMDB),--imdb $(IMDB))

# The pictures and figures of docs/lstm.md.
docs: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m studies  # small matrices: one thread is faster
	$(BIN)/python -m studies.scaling

tensorboard: setup
	$(BIN)/tensorboard --logdir runs --host 127.0.0.1

# Pins for every supported Python, resolved by uv (pip install uv). The packages that only torch's
# CUDA build needs are left to torch, which asks for their exact versions itself.
CUDA_ONLY := $(addprefix --no-emit-package ,cuda-bindings cuda-pathfinder cuda-toolkit triton \
	$(addprefix nvidia-,cublas cuda-cccl cuda-crt cuda-cupti cuda-nvcc cuda-nvrtc cuda-runtime \
	cudnn-cu13 cufft cufile curand cusolver cusparse cusparselt-cu13 nccl-cu13 nvjitlink \
	nvshmem-cu13 nvtx nvvm))
lock:
	echo "torch==2.13.0" | uv pip compile --universal --python-version 3.10 --extra dev \
		--constraint - --no-annotate --no-header --quiet $(CUDA_ONLY) \
		pyproject.toml --output-file requirements.lock

clean:
	rm -rf $(VENV) build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .coverage
