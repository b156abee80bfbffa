"""`inference.py` on the command line: what it writes, and what it refuses."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from satlisa.cli import inference as cli
from satlisa.inference.decoding import Decoding
from tests.helpers.inference_fixtures import command, refused
from tests.helpers.model_fixtures import picture
from tests.helpers.paths import ROOT


def test_command_writes_masks(
    model_dirs: dict[str, Path], image_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = ["--model_dir", model_dirs["masks"], "--image", image_file, "--device", "cpu", "--max_new_tokens", 3]
    outputs = [
        "--output_mask",
        tmp_path / "m.png",
        "--overlay",
        tmp_path / "o.png",
        "--output_instances",
        tmp_path / "i",
    ]
    assert command(*base, "--prompt", "Segment", *outputs) == 0
    text = capsys.readouterr().out.strip()
    assert "<SEG>" in text
    with Image.open(tmp_path / "m.png") as mask, Image.open(tmp_path / "o.png") as drawn:
        assert mask.mode == "L" and mask.size == drawn.size == (50, 40)
    names = sorted(path.name for path in (tmp_path / "i").iterdir())
    assert names == [f"instance_{n:03d}.png" for n in range(text.count("<SEG>"))]
    assert not list(tmp_path.rglob("*partial*"))


def test_older_instances_do_not_stay(
    model_dirs: dict[str, Path], image_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those of an answer with more masks; other files of the folder are left alone."""
    folder = tmp_path / "i"
    folder.mkdir()
    own = ["instance_000.png", "instance_057.png", "instance_1000.png"]
    users = ["instance_20240101.png", "instance_058.png", "instance_059.png"]  # ground truth, and a file that is no PNG
    others = ["instance_a.png", "instance_01.png", "instance_002.png.txt", "my_instance_003.png"]
    for name in own + others:
        (folder / name).write_bytes(b"old")
    for name in own:
        cli._save(picture(50, 40), folder / name, mark=True)
    for name in users:
        picture(50, 40).save(folder / name)
    (folder / users[-1]).write_bytes(b"old")
    before = {name: (folder / name).read_bytes() for name in others + users}
    base = ["--model_dir", model_dirs["masks"], "--image", image_file, "--device", "cpu", "--max_new_tokens", 2]
    assert command(*base, "--prompt", "Segment", "--output_instances", folder) == 0
    streams = capsys.readouterr()
    written = [f"instance_{n:03d}.png" for n in range(streams.out.count("<SEG>"))]
    assert sorted(path.name for path in folder.iterdir()) == sorted(others + users + written)
    assert all((folder / name).read_bytes() == data for name, data in before.items())
    assert "removed 2 instance_*.png of another answer" in streams.err and "instance_000.png score " in streams.err
    assert "IoU" not in streams.err


def test_outputs_fit_a_photo_that_exif_turns(model_dirs: dict[str, Path], tmp_path: Path) -> None:
    """The size of the stored pixels; a viewer turns the overlay as it turns the photo."""
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(50, 40).save(tmp_path / "turned.jpg", exif=exif)
    base = ["--model_dir", model_dirs["masks"], "--image", tmp_path / "turned.jpg", "--device", "cpu"]
    outputs = ["--output_mask", tmp_path / "m.png", "--overlay", tmp_path / "o.png", "--max_new_tokens", 2]
    assert command(*base, "--prompt", "Segment", *outputs) == 0
    with Image.open(tmp_path / "m.png") as mask, Image.open(tmp_path / "o.png") as drawn:
        assert mask.size == drawn.size == (50, 40) and drawn.getexif()[0x0112] == 6


@pytest.mark.parametrize("name", ["m.jpg", "m.JPEG", "m.webp", "m.jp2", "m.gif", "m.avif"])
def test_masks_are_not_written_with_loss(
    name: str, ask: Callable[..., str], tmp_path: Path, model_must_not_load: None
) -> None:
    assert re.search(
        r"--output_mask: .*(does not keep a mask's values 0 and 255|not written as).*name a \.png",
        ask(output_mask=tmp_path / name),
    )


@pytest.mark.parametrize("name", ["m.png", "m.tif", "m.bmp"])
def test_masks_hold_0_and_255(name: str, model_dirs: dict[str, Path], image_file: Path, tmp_path: Path) -> None:
    base = ["--model_dir", model_dirs["masks"], "--image", image_file, "--device", "cpu", "--max_new_tokens", 2]
    assert command(*base, "--prompt", "Segment", "--output_mask", tmp_path / name) == 0
    with Image.open(tmp_path / name) as mask:
        assert set(mask.convert("L").tobytes()) <= {0, 255}


def test_home_is_expanded_where_the_shell_does_not(
    model_dirs: dict[str, Path], image_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--image=~/sat.png` comes as it is written."""
    monkeypatch.setenv("HOME", str(tmp_path))
    base = [f"--model_dir={model_dirs['masks']}", f"--image=~/{image_file.name}", "--device=cpu", "--max_new_tokens=2"]
    assert command(*base, "--prompt=Segment", "--output_mask=~/m.png", "--output_instances=~/i") == 0
    assert (tmp_path / "m.png").is_file() and (tmp_path / "i" / "instance_000.png").is_file()


def test_command_without_seg_writes_nothing_and_exits_1(
    model_dirs: dict[str, Path], image_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = ["--model_dir", model_dirs["text"], "--image", image_file, "--device", "cpu", "--max_new_tokens", 3]
    assert command(*base, "--prompt", "Segment", "--output_mask", tmp_path / "m.png") == 1
    assert "no <SEG>" in capsys.readouterr().err and not (tmp_path / "m.png").exists()
    assert command(*base, "--prompt", "What is it?") == 0


def test_an_answer_without_seg_leaves_no_older_instances(
    model_dirs: dict[str, Path], image_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli._save(picture(50, 40), tmp_path / "i" / "instance_000.png", mark=True)
    picture(50, 40).save(tmp_path / "i" / "instance_001.png")
    base = ["--model_dir", model_dirs["text"], "--image", image_file, "--device", "cpu", "--max_new_tokens", 3]
    assert command(*base, "--prompt", "Segment", "--output_instances", tmp_path / "i") == 1
    assert [path.name for path in (tmp_path / "i").iterdir()] == ["instance_001.png"]
    assert "removed 1 instance_*.png" in capsys.readouterr().err


def test_images_that_cannot_be_read(ask: Callable[..., str], tmp_path: Path, model_must_not_load: None) -> None:
    assert "missing.png: no such file" in ask(image="missing.png")
    assert f"{tmp_path}: no raster files" in ask(image=tmp_path)
    (tmp_path / "text.png").write_text("no image")
    assert "text.png is not an image" in ask(image=tmp_path / "text.png")
    (tmp_path / "half.png").write_bytes((tmp_path / "sat.png").read_bytes()[:500])
    assert "half.png cannot be read" in ask(image=tmp_path / "half.png")


def test_model_directories_that_are_none(ask: Callable[..., str], image_file: Path, tmp_path: Path) -> None:
    assert "./missing: no such model directory" in ask(model_dir="./missing")
    assert "no such model directory" in ask(model_dir=image_file)
    (tmp_path / "empty").mkdir()
    assert "model_config.json, vlm_lora, seg_projector.pt, sam_mask_decoder.pt missing (found: nothing)" in ask(
        model_dir=tmp_path / "empty"
    )


def test_prompts_and_devices(ask: Callable[..., str]) -> None:
    assert "prompt: expected text" in ask(prompt=" ")
    assert "cuda:9" in ask(device="cuda:9")


def test_debug_shows_the_traceback(image_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--debug", "--model_dir", "./missing", "--image", image_file, "--prompt", "x") == 2
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--mask", "m.png"], "the following arguments are required: --model_dir, --image, --prompt"),
        (["--model_dir", "d", "--image", "i", "--prompt", "p", "--mask", "m"], "unrecognized arguments: --mask m"),
        (["--max_new_tokens", "0"], "argument --max_new_tokens: expected a positive integer, found '0'"),
    ],
)
def test_unknown_options(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main(arguments)
    assert said in refused(capsys, int(str(left.value.code)))


@pytest.mark.parametrize("option", ["output_mask", "overlay"])
def test_pictures_that_cannot_be_written(
    option: str, ask: Callable[..., str], tmp_path: Path, image_file: Path, model_must_not_load: None
) -> None:
    """Below a file: permission bits would not hold for root, who runs the tests of some machines."""
    (tmp_path / "file").write_text("x")
    assert f"--{option}: expected a folder at {tmp_path / 'file'}" in ask(**{option: tmp_path / "file" / "a" / "m.png"})
    assert f"--{option}: {tmp_path} is a folder" in ask(**{option: tmp_path})
    assert "pictures are not written as '.strange'" in ask(**{option: tmp_path / "m.strange"})
    assert "pictures are not written as ''" in ask(**{option: tmp_path / "mask"})
    assert "is the file of --image too" in ask(**{option: tmp_path / "." / "sat.png"})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "sat.png"]


def test_one_file_for_two_pictures(ask: Callable[..., str], tmp_path: Path, model_must_not_load: None) -> None:
    assert "is the file of --output_mask too" in ask(output_mask=tmp_path / "m.png", overlay=tmp_path / "m.png")


def test_a_folder_of_instances_that_cannot_be_made(
    ask: Callable[..., str], tmp_path: Path, model_must_not_load: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("x")
    assert "--output_instances: expected a folder" in ask(output_instances=tmp_path / "file")
    monkeypatch.setattr(os, "access", lambda place, _: Path(place) != tmp_path)
    assert f"--output_instances: {tmp_path} cannot be written;" in ask(output_instances=tmp_path / "new")


def test_a_failed_write_leaves_the_old_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture(4, 4).save(tmp_path / "m.png")

    def fill_the_disk(image: Image.Image, path: Path, *_: object) -> None:
        path.write_bytes(b"\x89PNG half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", fill_the_disk)
    with pytest.raises(cli.SatlisaError, match=r"m\.png: cannot be written .*No space left"):
        cli._save(picture(8, 8), tmp_path / "m.png")
    with Image.open(tmp_path / "m.png") as kept:
        assert kept.size == (4, 4)
    assert not list(tmp_path.glob("*partial*"))


def test_help_is_quick_and_lists_options() -> None:
    done = subprocess.run(
        [sys.executable, "inference.py", "--help"], cwd=ROOT, capture_output=True, text=True, check=True, env=os.environ
    )
    for option in ("--model_dir", "--output_mask", "--output_instances", "--overlay", "--max_new_tokens", "--device"):
        assert option in done.stdout


def test_ctrl_c_keeps_what_was_answered(
    model_dirs: dict[str, Path], image_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The text so far stays on stdout, with its line ended; exit code 130."""
    steps, step = [], Decoding.step

    def third_is_interrupted(decoding: Decoding) -> bool:
        steps.append(1)
        if len(steps) == 3:
            raise KeyboardInterrupt
        return step(decoding)

    monkeypatch.setattr(Decoding, "step", third_is_interrupted)
    assert command("--model_dir", model_dirs["masks"], "--image", image_file, "--prompt", "Segment") == 130
    assert capsys.readouterr().out == "<SEG><SEG>\n"


def test_drawn_answers_can_be_repeated(
    model_dirs: dict[str, Path], image_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = ["--model_dir", model_dirs["text"], "--image", image_file, "--prompt", "Describe"]
    texts = []
    for seed in ("1", "1", "2"):
        assert command(*call, "--temperature", 30, "--seed", seed, "--max_new_tokens", 6) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1] != texts[2]
    assert command(*call, "--temperature", -1) == 2
    assert "temperature: expected 0 (greedy) or a positive number, found -1.0" in capsys.readouterr().err
