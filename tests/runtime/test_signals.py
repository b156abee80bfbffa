"""SIGTERM and Ctrl-C, in training and in an evaluation."""

import signal
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from satlisa.runtime.signals import note_signals
from tests.helpers.evaluation_runs import OPTIONS, answering, load_script, put_stand_ins


def test_a_second_ctrl_c_interrupts_at_once() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(KeyboardInterrupt), note_signals() as request:
        assert request.reason == ""
        signal.raise_signal(signal.SIGTERM)
        assert request.reason == "SIGTERM"
        signal.raise_signal(signal.SIGINT)
        assert request.reason == "Ctrl-C"
        signal.raise_signal(signal.SIGINT)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_another_thread_installs_no_handlers() -> None:
    found = []

    def work() -> None:
        with note_signals():
            found.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [signal.getsignal(signal.SIGTERM)]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize(
    ("call", "said"),
    [(1, "interrupted"), (11, "interrupted after 16 of 28 samples; run the same command with --resume to continue")],
)
def test_a_signal_is_one_line_and_an_exit_code(
    number: int, code: int, call: int, said: str, tmp_path: Path, monkeypatch: Any, caplog: Any, capsys: Any
) -> None:
    def stop(at: int) -> None:
        if at == call:
            try:
                signal.raise_signal(number)
            finally:
                signal.raise_signal(signal.SIGTERM)  # launchers send a second one

    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    put_stand_ins(monkeypatch.setattr, answering(stop), lambda: None)
    monkeypatch.setattr(sys, "argv", ["infer_dataset.py", *OPTIONS, "--output_dir", str(tmp_path / "out")])
    assert load_script().main() == code
    assert [line for line in caplog.messages if "interrupted" in line] == [f"infer_dataset.py: {said}"]
    assert "Traceback" not in capsys.readouterr().err
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == before
    assert (tmp_path / "out").exists() == (call == 11)
