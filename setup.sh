#!/usr/bin/env bash
# Install satlisa into the active virtual or conda environment, or into .venv where there is none. Safe to repeat.
#
#   bash setup.sh          install
#   bash setup.sh --geo    install, and what scenes on the map need: rasterio, shapely, pyogrio, pyproj
#   bash setup.sh --web    install, and what the page in the browser needs: gradio (also: --geo --web)
#   bash setup.sh --demo   install, train the demo, evaluate it on unseen scenes
#   bash setup.sh --test   install, then lint, type check and test
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

usage() { sed -n '2,8s/^# \{0,1\}//p' setup.sh; }

step="start"
trap 'status=$?; [ "$status" -eq 0 ] || echo "setup.sh: failed in step \"$step\" (exit code $status)" >&2' EXIT
say() { step="$1"; echo "== $1"; }
fail() { echo "$1" >&2; exit 1; }

fits() { "$1" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; }
has() { "$1" -c "import $2" 2>/dev/null; }
install() { "$python" -m pip install --quiet "$@"; }

make_venv() {
    local base
    for base in python3 python3.13 python3.12 python3.11 python3.10 python; do
        fits "$base" || continue
        local options=(--clear) # what is left of a .venv without a Python that runs is of no use
        # A Python that has torch already, as on Colab, shares it: gigabytes that need no second download. Its pip is
        # shared as well, because such a Python often comes without the ensurepip that venv would take pip from.
        if has "$base" "torch, torchvision, pip"; then options+=(--system-site-packages --without-pip); fi
        "$base" -m venv "${options[@]}" .venv
        return
    done
    fail "no Python 3.10 to 3.13 found; install one, or activate an environment that has it"
}

choose_python() {
    say "choose Python 3.10 to 3.13"
    if [ -n "${VIRTUAL_ENV:-}" ]; then
        python="$VIRTUAL_ENV/bin/python"
        echo "the active virtual environment: $VIRTUAL_ENV"
    elif [ -n "${CONDA_PREFIX:-}" ]; then
        python="$CONDA_PREFIX/bin/python"
        echo "the active conda environment: $CONDA_PREFIX"
    else
        python=".venv/bin/python"
        echo "no environment is active, so .venv is used (source .venv/bin/activate)"
        if ! "$python" -c '' 2>/dev/null; then make_venv; fi
    fi
    fits "$python" || fail "$python: expected Python 3.10 to 3.13, found $("$python" --version 2>&1 || true)"
    "$python" --version
    if ! has "$python" pip; then "$python" -m ensurepip; fi # environments made by uv, or cut short, have none
}

install_torch() {
    say "install torch and torchvision"
    if has "$python" "torch, torchvision"; then
        echo "an importable pair is installed already"
        return
    fi
    # Both in one command and so from one index: torchvision does not import beside a torch of another build.
    local pair=("torch>=2.11,<3" "torchvision>=0.26,<1")
    install "${pair[@]}"
    if ! has "$python" "torch, torchvision"; then
        echo "the two do not fit together, so both are reinstalled"
        install --force-reinstall "${pair[@]}"
    fi
}

check_transformers() {
    say "check that transformers has Qwen3.5"
    if ! has "$python" transformers.models.qwen3_5; then
        echo "the installed release lacks it, so transformers is installed from git"
        install "transformers @ git+https://github.com/huggingface/transformers.git"
    fi
    "$python" -c 'import transformers.models.qwen3_5; print("transformers", transformers.__version__, "has it")'
}

install_commands() {
    say "install the commands satlisa-train, satlisa-ask and satlisa-evaluate"
    # The build backend is downloaded for them: offline that fails, after two short tries instead of pip's long ones.
    if ! PIP_RETRIES=1 PIP_DEFAULT_TIMEOUT=15 install --no-deps --editable .; then
        echo "they could not be installed; train.py, inference.py and infer_dataset.py do the same"
    fi
}

# A GPU that torch cannot use: mostly a driver that is older than the wheels' CUDA.
explain_driver() {
    local driver
    driver="$({ nvidia-smi 2>/dev/null || true; } | sed -n 's/.*CUDA Version: *\([0-9.]*\).*/\1/p' | head -n 1)"
    [ -n "$driver" ] || return 0
    echo "nvidia-smi shows a GPU; its driver supports CUDA up to $driver, torch was built for CUDA \
$("$python" -c 'import torch; print(torch.version.cuda or "none (CPU only)")')."
    echo "Update the driver, or install wheels for CUDA 12.6, which every driver from 525 on supports:"
    echo "  $python -m pip install --force-reinstall torch torchvision --index-url https://download.pytorch.org/whl/cu126"
}

install_kernels() {
    say "look for a CUDA device"
    if ! "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' 2>/dev/null; then
        echo "none that torch can use, so the CUDA kernels of the language model are not installed"
        explain_driver
        return
    fi
    local package kernels=("causal-conv1d>=1.5,<2")
    # flash-linear-attention refuses Hopper (compute capability 9.0) in the backward pass with triton from 3.4 to 3.7.0,
    # whose results are wrong there. triton itself belongs to torch and is not changed.
    if "$python" -c '
import re, sys, torch, triton
version = tuple(map(int, re.findall(r"\d+", triton.__version__)[:3]))
sys.exit(torch.cuda.get_device_capability() == (9, 0) and (3, 4, 0) <= version < (3, 7, 1))'; then
        kernels=("flash-linear-attention>=0.6,<0.7" "${kernels[@]}")
    else
        echo "flash-linear-attention is left out: on this GPU it needs another triton than this torch has"
    fi
    for package in "${kernels[@]}"; do
        # Some of them are compiled on the spot, which fails without a CUDA toolkit. Everything works without them.
        if ! install --no-build-isolation "$package"; then
            echo "${package%%>*} could not be installed; the language model takes its slower layers in plain PyTorch"
        fi
    done
}

check_installation() {
    say "check the installation"
    "$python" - <<'PYTHON'
import accelerate, datasets, peft, torch, torchvision, transformers

from satlisa.model.delta_net import describe_kernels
from satlisa.runtime.hardware import detect, dtype_name

for package in (torch, torchvision, transformers, peft, datasets, accelerate):
    print(f"{package.__name__:<14}{package.__version__}")
hardware = detect(may_fall_back=True)
print(f"{'device':<14}{hardware.name} ({hardware.device}, {dtype_name(hardware.dtype)})")
print(describe_kernels(hardware.device, hardware.dtype))
PYTHON
}

set_up() {
    choose_python
    install_torch
    say "install requirements.txt"
    install -r requirements.txt
    install_commands
    check_transformers
    install_kernels
    check_installation
}

install_geo() {
    say "install requirements-geo.txt"
    install -r requirements-geo.txt # wheels, which bring their own GDAL
    "$python" -c 'import pyogrio, pyproj, rasterio, shapely; print("rasterio", rasterio.__version__, "with GDAL", rasterio.__gdal_version__)'
}

install_web() {
    say "install requirements-web.txt"
    install -r requirements-web.txt
    "$python" -c 'import gradio; print("gradio", gradio.__version__)'
}

demo() {
    say "train the demo (a few minutes)"
    PRESET=demo OUTPUT_DIR=demo_model OVERWRITE=1 "$python" train.py
    say "evaluate it on unseen scenes"
    "$python" infer_dataset.py --model_dir demo_model --dataset demo --split test --samples_per_task 0 \
        --batch_size 16 --report_samples 12 --output_dir demo_eval
    say "done"
    echo "model:   $PWD/demo_model"
    echo "report:  $PWD/demo_eval/REPORT.md"
    "$python" - <<'PYTHON'
import json

tasks = json.load(open("demo_eval/results.json"))["tasks"]
for task, key, name in (
    ("building_segmentation", "giou", "building segmentation, gIoU"),
    ("instance_segmentation", "giou", "instances, gIoU of their union"),
    ("instance_segmentation", "ap50", "instances, AP50"),
    ("instance_segmentation", "instance_f1", "instances, F1 at IoU 0.5"),
    ("object_detection", "box_f1", "boxes in text, F1 at IoU 0.5"),
    ("image_captioning", "cider_d", "captions, CIDEr-D"),
    ("scene_classification", "accuracy", "scene classification, accuracy"),
):
    scores = tasks.get(task, {})
    if scores.get(key) is not None:
        low, high = scores.get("intervals", {}).get(key) or (None, None)
        print(f"{name + ':':<34}{scores[key]:.3f}" + ("" if low is None else f"  (95 %: {low:.3f} to {high:.3f})"))
PYTHON
}

run_tests() {
    say "install requirements-dev.txt"
    install -r requirements-dev.txt
    say "lint (ruff check)"
    "$python" -m ruff check .
    say "formatting (ruff format --check)"
    "$python" -m ruff format --check .
    say "types (mypy)"
    "$python" -m mypy
    say "tests (pytest)"
    PYTEST_ADDOPTS="${PYTEST_ADDOPTS--n 2 --dist loadfile --no-loadscope-reorder}" "$python" -m pytest
}

case "$*" in
    "--geo --web" | "--web --geo") set -- "--geo --web" ;;
    *) if [ "$#" -gt 1 ]; then set -- "$*"; fi ;; # other pairs are as unknown as a misspelt option
esac
case "${1:-}" in
    "") set_up ;;
    --geo)
        set_up
        install_geo
        ;;
    --web)
        set_up
        install_web
        ;;
    "--geo --web")
        set_up
        install_geo
        install_web
        ;;
    --demo)
        set_up
        demo
        ;;
    --test)
        set_up
        run_tests
        ;;
    -h | --help) usage ;;
    *)
        echo "setup.sh: unknown option '$1'" >&2
        usage >&2
        trap - EXIT
        exit 2
        ;;
esac
