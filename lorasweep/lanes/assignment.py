"""What an engine needs to train a trial: hyperparameters, batches and the number of steps."""

from __future__ import annotations

from lorasweep.data.batches import Batches, row_width, steps_of
from lorasweep.data.tokens import TrainingData
from lorasweep.spec.sweep import SweepSpec
from lorasweep.spec.trial import LoraHyperparameters, TrialSpec
from lorasweep.train.engine import Engine
from lorasweep.train.lora_slot import LoraTrial
from lorasweep.train.progress import Trial, micro_batch_size


def row_width_of(spec: SweepSpec, data: TrainingData, engine: Engine, workers: int) -> int | None:
    """Choose the width of batch rows, in tokens, for all trials of a study.

    The base multiplies the rows of all trials of a step at once, so all rows have one width; it
    suits the smallest batch of the study.

    Returns:
        None if examples cannot share a row; a batch is then as wide as its longest example.
    """
    if not engine.shares_rows:
        return None
    smallest = min(int(size) for size in spec.levels_of("batch_size"))
    micro_batch = micro_batch_size(spec.train, smallest, workers)
    return row_width(data.train, micro_batch, engine.attention_cost)


def assign(
    trial: TrialSpec,
    spec: SweepSpec,
    data: TrainingData,
    *,
    workers: int,
    pad: int,
    width: int | None,
    shared: bool,
) -> Trial:
    """Put together what an engine trains.

    Args:
        pad: token id that fills up rows.
        width: of the rows, in tokens.
        shared: whether several examples share a row.
    """
    hyperparameters, train = trial.hyperparameters, spec.train
    size = hyperparameters.batch_size
    micro_batch = micro_batch_size(train, size, workers)
    batches = Batches(data.train, size, micro_batch, trial.seed, pad, width, shared)
    steps = steps_of(hyperparameters, train, seq_len=data.seq_len, examples=len(data.train))
    if isinstance(hyperparameters, LoraHyperparameters):
        return LoraTrial(trial.id, hyperparameters, train, batches, steps)
    return Trial(trial.id, hyperparameters, train, batches, steps)
