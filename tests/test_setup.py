"""setup.sh, run for real on a Python that writes down its orders instead of following them."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT

PAIR = "import torch, torchvision"
QWEN = "import transformers.models.qwen3_5"
COMMANDS = "--no-deps --editable ."

# Writes one order a line, fails on orders that FAIL matches; `-m venv` makes an environment with a Python like itself.
STUB = r"""#!/bin/bash
line="$(printf '%s ' "$@" | tr '\n' ' ')"
echo "$0 $line" >> "$ORDERS"
if [ -n "${FAIL:-}" ] && [[ "$line" =~ $FAIL ]]; then exit 3; fi
if [ -n "${FAIL_ONCE:-}" ] && [[ "$line" =~ $FAIL_ONCE ]] && [ ! -e "$ORDERS.once" ]; then
    touch "$ORDERS.once"
    exit 3
fi
if [[ "$line" == *"torch.cuda.is_available"* ]] && [ -z "${CUDA:-}" ]; then exit 1; fi
case "$line" in
    "-m venv "*) mkdir -p "${@: -1}/bin" && cp "$0" "${@: -1}/bin/python" ;;
    "--version "*) echo "Python 9.9" ;;
esac
"""


class Sandbox:
    """A copy of setup.sh beside no project at all, with stubs for every Python that it could find."""

    def __init__(self, folder: Path) -> None:
        self.project = folder / "a project"  # a space in the path, as on many a desktop
        self.project.mkdir()
        (self.project / "setup.sh").write_bytes((ROOT / "setup.sh").read_bytes())
        self.environment = folder / "env"
        for path in [self.environment / "bin" / "python", *(folder / "path" / name for name in PYTHONS)]:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(STUB)
            path.chmod(0o755)
        self.path = f"{folder / 'path'}:/usr/bin:/bin"
        self.log = folder / "orders"

    def run(self, *options: str, active: str = "VIRTUAL_ENV", **variables: str) -> subprocess.CompletedProcess[str]:
        environ = {"PATH": self.path, "ORDERS": str(self.log), **variables}
        if active:
            environ[active] = str(self.environment)
        command = ["bash", str(self.project / "setup.sh"), *options]
        return subprocess.run(command, env=environ, cwd="/", capture_output=True, text=True, timeout=60)

    def orders(self) -> list[str]:
        """What the Pythons were told, without the interpreter's path."""
        return [line.split("python", 1)[1].split(" ", 1)[1].strip() for line in self.log.read_text().splitlines()]

    def pip(self) -> list[str]:
        return [order.removeprefix("-m pip install --quiet ") for order in self.orders() if "-m pip install" in order]


PYTHONS = ("python", "python3", "python3.10", "python3.11", "python3.12", "python3.13")


@pytest.fixture
def sandbox(tmp_path: Path) -> Sandbox:
    return Sandbox(tmp_path)


def test_a_complete_environment_only_gets_the_requirements(sandbox: Sandbox) -> None:
    done = sandbox.run()
    assert done.returncode == 0, done.stderr
    assert sandbox.pip() == ["-r requirements.txt", COMMANDS]
    assert all(line.startswith(str(sandbox.environment)) for line in sandbox.log.read_text().splitlines())
    assert not (sandbox.project / ".venv").exists()


def test_conda_environment_is_used(sandbox: Sandbox) -> None:
    done = sandbox.run(active="CONDA_PREFIX")
    assert done.returncode == 0, done.stderr
    assert f"the active conda environment: {sandbox.environment}" in done.stdout
    assert sandbox.pip() == ["-r requirements.txt", COMMANDS]


def test_torch_and_torchvision_come_in_one_command(sandbox: Sandbox) -> None:
    done = sandbox.run(FAIL_ONCE=PAIR)
    assert done.returncode == 0, done.stderr
    assert sandbox.pip() == ["torch>=2.11,<3 torchvision>=0.26,<1", "-r requirements.txt", COMMANDS]


def test_a_pair_that_does_not_fit_is_installed_anew(sandbox: Sandbox) -> None:
    sandbox.run(FAIL=PAIR)
    assert sandbox.pip()[1] == "--force-reinstall torch>=2.11,<3 torchvision>=0.26,<1"


def test_torch_is_asked_for_as_in_requirements() -> None:
    pair = re.search(r'local pair=\("(.+)" "(.+)"\)', (ROOT / "setup.sh").read_text())
    assert pair is not None
    wanted = [line.split("#")[0].strip() for line in (ROOT / "requirements.txt").read_text().splitlines()]
    assert set(pair.groups()) <= set(wanted)


def test_transformers_comes_from_git_only_without_qwen(sandbox: Sandbox) -> None:
    done = sandbox.run(FAIL_ONCE=QWEN)
    assert done.returncode == 0, done.stderr
    assert sandbox.pip()[-1].startswith("transformers @ git+https://github.com/huggingface/transformers")


def test_kernels_are_for_cuda_machines_only(sandbox: Sandbox) -> None:
    done = sandbox.run(CUDA="1")
    assert done.returncode == 0, done.stderr
    kernels = [f"--no-build-isolation {name}" for name in ("flash-linear-attention>=0.6,<0.7", "causal-conv1d>=1.5,<2")]
    assert sandbox.pip() == ["-r requirements.txt", COMMANDS, *kernels]


def test_hopper_with_a_triton_that_is_wrong_there_goes_without_that_kernel(sandbox: Sandbox) -> None:
    done = sandbox.run(CUDA="1", FAIL="get_device_capability")
    assert done.returncode == 0, done.stderr
    assert sandbox.pip()[2:] == ["--no-build-isolation causal-conv1d>=1.5,<2"]
    assert "flash-linear-attention is left out" in done.stdout


def test_a_driver_that_is_too_old_is_told_what_fits(sandbox: Sandbox, tmp_path: Path) -> None:
    tool = tmp_path / "path" / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho '| NVIDIA-SMI 535.104  Driver Version: 535.104  CUDA Version: 12.2     |'\n")
    tool.chmod(0o755)
    done = sandbox.run()
    assert done.returncode == 0, done.stderr
    assert "supports CUDA up to 12.2" in done.stdout
    assert (
        "pip install --force-reinstall torch torchvision --index-url https://download.pytorch.org/whl/cu126"
        in done.stdout
    )
    tool.unlink()
    assert "update the driver" not in sandbox.run().stdout.lower()


def test_the_console_commands_may_fail(sandbox: Sandbox) -> None:
    done = sandbox.run(FAIL="--editable")
    assert done.returncode == 0, done.stderr
    assert "they could not be installed; train.py, inference.py and infer_dataset.py do the same" in done.stdout
    assert sandbox.orders()[-1] == "-"  # the check of the installation, the last step


def test_goes_on_without_a_kernel_that_does_not_build(sandbox: Sandbox) -> None:
    done = sandbox.run(CUDA="1", FAIL="causal-conv1d")
    assert done.returncode == 0, done.stderr
    assert "causal-conv1d could not be installed" in done.stdout
    assert "flash-linear-attention could not" not in done.stdout


def test_environment_without_pip_gets_it(sandbox: Sandbox) -> None:
    assert sandbox.run(FAIL="^-c import pip").returncode == 0
    assert "-m ensurepip" in sandbox.orders()


def test_venv_is_made_once_and_reused(sandbox: Sandbox) -> None:
    first = sandbox.run(active="", FAIL_ONCE=PAIR)
    assert first.returncode == 0, first.stderr
    made = [order for order in sandbox.orders() if order.startswith("-m venv")]
    assert made == ["-m venv --clear .venv"]
    assert sandbox.pip() == ["-r requirements.txt", COMMANDS]
    sandbox.log.unlink()
    assert sandbox.run(active="").returncode == 0
    assert not [order for order in sandbox.orders() if order.startswith("-m venv")]
    assert all(line.startswith(".venv/bin/python") for line in sandbox.log.read_text().splitlines())


def test_venv_shares_the_torch_and_pip_of_its_python(sandbox: Sandbox) -> None:
    sandbox.run(active="")
    assert "-m venv --clear --system-site-packages --without-pip .venv" in sandbox.orders()


def test_another_python_is_found_where_python3_does_not_fit(sandbox: Sandbox) -> None:
    too_old = sandbox.project.parent / "path" / "python3"
    too_old.write_text("#!/bin/bash\nexit 1\n")
    done = sandbox.run(active="")
    assert done.returncode == 0, done.stderr
    assert "path/python3.13 -m venv" in sandbox.log.read_text()


def test_no_python_that_fits(sandbox: Sandbox) -> None:
    done = sandbox.run(active="", FAIL="^-c import sys")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "no Python 3.10 to 3.13 found; install one, or activate an environment that has it",
        'setup.sh: failed in step "choose Python 3.10 to 3.13" (exit code 1)',
    ]


def test_active_environment_of_another_version_is_refused(sandbox: Sandbox) -> None:
    done = sandbox.run(FAIL="^-c import sys")
    assert done.returncode == 1
    assert done.stderr.startswith(f"{sandbox.environment}/bin/python: expected Python 3.10 to 3.13, found Python 9.9")
    assert not sandbox.pip()


def test_the_version_check_itself() -> None:
    check = re.search(r"^fits\(\) .*? -c '(.+?)'", (ROOT / "setup.sh").read_text(), re.MULTILINE)
    assert check is not None
    for version, fits in {(3, 9): 1, (3, 10): 0, (3, 13): 0, (3, 14): 1, (2, 7): 1}.items():
        code = check[1].replace("sys.version_info[:2]", str(version))
        assert subprocess.run([sys.executable, "-c", code]).returncode == fits


@pytest.mark.parametrize(
    ("order", "step"),
    [
        ("requirements.txt", "install requirements.txt"),
        ("transformers @ git|" + QWEN, "check that transformers has Qwen3.5"),
        ("^- $", "check the installation"),
        ("^train.py", "train the demo (a few minutes)"),
        ("^infer_dataset.py", "evaluate it on unseen scenes"),
    ],
)
def test_a_failed_step_stops_with_its_name(sandbox: Sandbox, order: str, step: str) -> None:
    done = sandbox.run("--demo", FAIL=order)
    assert done.returncode == 3
    assert done.stderr.splitlines()[-1] == f'setup.sh: failed in step "{step}" (exit code 3)'
    assert re.search(order, sandbox.orders()[-1] + " ")


def test_geo_installs_its_extra_after_all_else(sandbox: Sandbox) -> None:
    done = sandbox.run("--geo")
    assert done.returncode == 0, done.stderr
    assert sandbox.pip() == ["-r requirements.txt", COMMANDS, "-r requirements-geo.txt"]
    assert "import pyogrio, pyproj, rasterio, shapely" in sandbox.orders()[-1]


def test_web_installs_its_extra_after_all_else(sandbox: Sandbox) -> None:
    done = sandbox.run("--web")
    assert done.returncode == 0, done.stderr
    assert sandbox.pip() == ["-r requirements.txt", COMMANDS, "-r requirements-web.txt"]
    assert "import gradio" in sandbox.orders()[-1]


@pytest.mark.parametrize("options", [["--geo", "--web"], ["--web", "--geo"]])
def test_both_extras_go_together(sandbox: Sandbox, options: list[str]) -> None:
    done = sandbox.run(*options)
    assert done.returncode == 0, done.stderr
    assert sandbox.pip()[2:] == ["-r requirements-geo.txt", "-r requirements-web.txt"]


def test_demo_trains_then_evaluates_unseen_scenes(sandbox: Sandbox) -> None:
    (sandbox.environment / "bin" / "python").write_text(
        STUB + 'if [ "$1" = train.py ]; then env | grep -E "PRESET|OUTPUT_DIR|OVERWRITE" | sort >> "$ORDERS.env"; fi\n'
    )
    done = sandbox.run("--demo")
    assert done.returncode == 0, done.stderr
    orders = sandbox.orders()
    evaluate = next(order for order in orders if order.startswith("infer_dataset.py"))
    assert orders.index("train.py") < orders.index(evaluate)
    assert "--dataset demo --split test --samples_per_task 0" in evaluate
    assert Path(f"{sandbox.log}.env").read_text() == "OUTPUT_DIR=demo_model\nOVERWRITE=1\nPRESET=demo\n"
    assert f"model:   {sandbox.project}/demo_model" in done.stdout
    assert f"report:  {sandbox.project}/demo_eval/REPORT.md" in done.stdout


def test_headline_numbers_are_read_from_the_results(tmp_path: Path) -> None:
    code = re.findall(r"<<'PYTHON'\n(.*?)\nPYTHON", (ROOT / "setup.sh").read_text(), re.DOTALL)[-1]
    (tmp_path / "demo_eval").mkdir()
    (tmp_path / "demo_eval" / "results.json").write_text(
        '{"tasks": {"building_segmentation": {"giou": 0.75149}, "instance_segmentation": {"giou": 0.7},'
        ' "scene_classification": {"accuracy": 1.0}}}'
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert re.findall(r"\d\.\d+", done.stdout) == ["0.751", "0.700", "1.000"]


def test_test_runs_every_tool(sandbox: Sandbox) -> None:
    done = sandbox.run("--test")
    assert done.returncode == 0, done.stderr
    tools = ["-m ruff check .", "-m ruff format --check .", "-m mypy", "-m pytest"]
    assert sandbox.orders()[-5:] == ["-m pip install --quiet -r requirements-dev.txt", *tools]


@pytest.mark.parametrize("tool", ["ruff check", "ruff format", "mypy", "pytest"])
def test_test_fails_with_each_tool(sandbox: Sandbox, tool: str) -> None:
    assert sandbox.run("--test", FAIL=f"^-m {tool}").returncode == 3
    assert tool in sandbox.orders()[-1]


@pytest.mark.parametrize("options", [["--demos"], ["--demo", "--test"], ["demo"]])
def test_unknown_options(sandbox: Sandbox, options: list[str]) -> None:
    done = sandbox.run(*options)
    assert done.returncode == 2
    assert done.stderr.startswith(f"setup.sh: unknown option '{' '.join(options)}'")
    assert "bash setup.sh --demo" in done.stderr
    assert "failed in step" not in done.stderr
    assert not sandbox.log.exists()


def test_help(sandbox: Sandbox) -> None:
    done = sandbox.run("--help")
    assert done.returncode == 0
    assert all(option in done.stdout for option in ("--demo", "--test"))
    assert not sandbox.log.exists()


def test_ci_calls_the_test_command_from_anywhere(tmp_path: Path) -> None:
    (tmp_path / ".ci").mkdir()
    (tmp_path / ".ci" / "run").write_bytes((ROOT / ".ci" / "run").read_bytes())
    (tmp_path / "setup.sh").write_text('echo "$PWD: $*"\nexit 7\n')
    done = subprocess.run(["bash", str(tmp_path / ".ci" / "run")], cwd="/", capture_output=True, text=True)
    assert done.stdout == f"{tmp_path}: --test\n"
    assert done.returncode == 7
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
