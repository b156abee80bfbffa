"""Teacher-forced loss and mask IoU over the validation rows."""

import torch
from torch import Tensor
from tqdm import tqdm

from satlisa.data.sample import RowError
from satlisa.model.losses import loss_means, mask_iou, weigh
from satlisa.runtime.sharding import unsharded_parameters
from satlisa.training.state import Run


@torch.no_grad()
def validate(run: Run) -> dict[str, float | None] | None:
    """Loss and mask IoU over the validation rows, each process doing its share.

    Returns:
        loss, loss_text, loss_bce, loss_dice (means over all tokens and masks), mask_iou (mean over masks, in the
        mask frame without its padding; empty in both counts 1), masks. A mean over nothing is None, and so is
        everything when a process was asked to stop.
    """
    run.model.eval()
    with unsharded_parameters(run.model, run.accelerator):
        sums, errors = _own_share(run)
    run.model.train()
    for error in run.processes.gather(errors):
        run.progress.val_skips.add(error)
    totals = run.accelerator.reduce(sums.float().to(run.accelerator.device), "sum")
    text, bce, dice, iou, tokens, masks, stopped = totals.tolist()
    if stopped:
        return None
    text, bce, dice = loss_means(text, bce, dice, tokens, masks)
    of_text = {"loss": weigh(run.model.config, text, bce, dice), "loss_text": text}
    of_masks = {"loss_bce": bce, "loss_dice": dice, "mask_iou": iou / max(masks, 1)}
    found: dict[str, float | None] = {**of_text, **of_masks, "masks": masks}
    return found | dict.fromkeys(of_text if not tokens else ()) | dict.fromkeys(of_masks if not masks else ())


def _own_share(run: Run) -> tuple[Tensor, list[RowError]]:
    """Sums over this process's rows, (7,): L_text, BCE, DICE, IoU, tokens, masks, and whether it was asked to stop;
    and the rows that cannot be used."""
    errors: list[RowError] = []
    sums = torch.zeros(7, dtype=torch.float64)  # on the CPU: MPS has no float64
    num_steps, is_quiet = len(run.val_loader), not run.processes.is_main
    steps = tqdm(run.val_loader.steps(), "validating", num_steps, leave=False, unit="step", disable=is_quiet)
    for loaded in steps:
        if run.stop_request.reason:
            sums[6] = 1
            break
        errors += loaded.errors
        for batch in loaded.batches:
            batch = batch.to(run.accelerator.device)
            output = run.model(batch)  # not the DDP around it: processes may have different numbers of batches
            losses, counts = output.losses, torch.tensor([batch.num_tokens, batch.num_masks])
            iou = mask_iou(output.mask_logits > 0, batch.mask_targets > 0.5, batch.mask_valid)
            sums[:6] += torch.cat([torch.stack([losses.text, losses.bce, losses.dice, iou.sum()]).cpu(), counts])
    return sums, errors
