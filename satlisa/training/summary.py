"""What a finished run leaves to look at: `loss_curve.png` and `train_summary.json`."""

from typing import Any

from satlisa.model.parameters import count_parameters
from satlisa.runtime.hardware import Hardware
from satlisa.runtime.versions import installed_versions
from satlisa.training.log import peak_memory
from satlisa.training.state import Run

_PACKAGES = ("torch", "torchvision", "transformers", "peft", "datasets", "accelerate", "numpy", "Pillow")


def summarize(run: Run, hardware: Hardware) -> dict[str, Any]:
    """Draw the curve and write the summary; returns its content."""
    summary = {**_describe(run, hardware), **_results(run)}
    run.log.draw()
    run.log.write_summary(summary)
    return summary


def _describe(run: Run, hardware: Hardware) -> dict[str, Any]:
    """Settings with their origins, hardware, versions."""
    origins = run.settings.origins
    return {
        "settings": {
            name.upper(): {"value": value, "from": origins.get(name, "")}
            for name, value in run.settings.values().items()
        },
        "hardware": {"name": hardware.name, "device": str(hardware.device), "dtype": str(hardware.dtype)},
        "versions": installed_versions(*_PACKAGES),
    }


def _results(run: Run) -> dict[str, Any]:
    """Steps, time, parameters, validation, and every row that was not used."""
    progress = run.progress
    return {
        "steps": progress.step,
        "seconds": round(run.elapsed(), 1),
        "parameters": {
            part: {"parameters": count, "trainable": trainable}
            for part, (count, trainable) in count_parameters(run.model).items()
        },
        "validation": run.log.validations,
        "peak_memory": peak_memory(run.accelerator.device),
        "dropped_steps": progress.dropped,
        "overflowed_steps": progress.overflows,
        "loss_scale": run.scaler.get_scale(),
        "skipped_rows": progress.skips.summary(),
        "skipped_validation_rows": progress.val_skips.summary(),
        "instances_left_out": progress.left_out,
        "shortened_rows": progress.shortened,
        "rows_with_fewer_places": progress.places_cut,
    }
