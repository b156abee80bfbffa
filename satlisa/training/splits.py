"""The rows of a run: which are taken, and what they are taken for."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from satlisa.config import ModelConfig
from satlisa.data.dataset import SplitError, load_rows
from satlisa.data.mixing import ByDataset, Concatenated, MixedSampler, mix, parse_datasets
from satlisa.data.sampler import IndexedSampler, Sampler
from satlisa.data.streaming import open_stream
from satlisa.data.survey import Survey, describe_tasks, survey
from satlisa.training.settings import TrainConfig

logger = logging.getLogger(__name__)

_STREAMED_TO_CHOOSE = 10  # rows of a stream that are read for each validation row, so that more than one task is met


@dataclass(frozen=True)
class Data:
    """The model's configuration, the samplers of both splits, and what the rows of each dataset are."""

    config: ModelConfig
    train: Sampler
    validation: Sampler
    surveys: list[Survey]

    def fractions(self, rows: Sampler | None = None) -> bool | ByDataset:
        """Whether coordinates are fractions, for each dataset where there are several.

        Args:
            rows: of either split; None: those of training.
        """
        flags = [found.fractions for found in self.surveys]
        if not isinstance(self.train, MixedSampler):
            return flags[0]
        by_name = dict(zip(self.train.source.names, flags, strict=True))
        source = self.train.source if rows is None else getattr(rows, "source", None)
        if not isinstance(source, Concatenated):  # no validation rows at all
            return False
        return ByDataset(source, tuple(by_name[name] for name in source.names))


def open_data(settings: TrainConfig, is_main: bool = True) -> Data:
    """Open both splits, and log what the rows are taken for, warnings in the main process alone.

    Without a validation split, warn and train without one.
    """
    config = settings.new_model_config()
    named = parse_datasets(settings.dataset)
    rows: Sampler
    if len(named) == 1:
        rows = _open_split(settings, "train", settings.max_samples, settings.shuffle_buffer, settings.seed)
        parts = {"train split": rows}
    else:
        source = _concatenate({name: load_rows(name, "train") for name in named}, settings.max_samples)
        rows = mix(source, list(named.values()), settings.seed)
        parts = {
            f"train split of {name}": IndexedSampler(of, size)
            for name, of, size in zip(source.names, source.sources, source.sizes, strict=True)
        }
        shares = (f"{count:,} of {name}" for name, count in zip(source.names, rows.counts, strict=True))
        logger.info("an epoch has %s; %s", " and ".join(shares), "; ".join(source.ranges()))
    surveys = []
    for split, part in parts.items():
        surveys.append(looked_at := survey(part, config.seg_tasks))
        _log_split(split, part, f"the first {len(part):,} rows" if settings.max_samples else f"{len(part):,} rows")
        logger.info("%s: %s", split, looked_at.line())
        for warning in looked_at.warnings() if is_main else ():
            logger.warning("%s: %s", split, warning)
    return Data(config, rows, _open_validation(settings), surveys)


def _concatenate(sources: Mapping[str, Any], limit: int = 0) -> Concatenated:
    """Datasets one after the other, the first `limit` rows of each; 0: all."""
    sizes = tuple(min(len(rows), limit) if limit else len(rows) for rows in sources.values())
    return Concatenated(tuple(sources), tuple(sources.values()), sizes)


def _open_validation(settings: TrainConfig) -> Sampler:
    """The rows of the validation split that are used: a seeded choice of `val_samples`, spread over the tasks."""
    count = settings.val_samples
    found: dict[str, Any] = {}
    for name in parse_datasets(settings.dataset):
        try:
            limit = count * _STREAMED_TO_CHOOSE if settings.streaming else 0
            found[name] = _open_split(settings, "validation", limit, name=name)
        except SplitError as error:
            logger.warning("%s: training without validation on it", error)
    if not found:
        return IndexedSampler([])
    rows: Sampler = next(iter(found.values()))
    if len(parse_datasets(settings.dataset)) > 1:  # also with one left: its rows keep the name of their dataset
        rows = IndexedSampler(_concatenate({name: part.source for name, part in found.items()}))
    chosen = rows.choose(count, settings.seed)
    some = f"{len(chosen):,} of {len(rows):,} rows, chosen by SEED over the tasks"
    _log_split("validation split", chosen, some if len(chosen) < len(rows) else f"{len(rows):,} rows")
    return chosen


def _log_split(split: str, rows: Sampler, which: str) -> None:
    """Log how many rows of a split are used, and their tasks where that does not read a stream."""
    tasks = f": {describe_tasks(rows.tasks())}" if isinstance(rows, IndexedSampler) else ""
    logger.info("%s: %s%s", split, which, tasks)


def _open_split(
    settings: TrainConfig, split: str, limit: int, buffer: int = 1, seed: int | None = None, name: str = ""
) -> Sampler:
    dataset = name or next(iter(parse_datasets(settings.dataset)))
    if settings.streaming:
        return open_stream(dataset, split, limit, buffer, seed)
    return IndexedSampler(load_rows(dataset, split), limit, seed)
