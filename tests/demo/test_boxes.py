"""IoU of boxes."""

import numpy as np
import pytest

from satlisa.data.synthetic.plan import Plan
from satlisa.demo.boxes import box_iou, box_recall
from satlisa.demo.gallery import Exhibit


def test_box_iou_by_hand():
    assert box_iou((0, 0, 10, 10), (5, 0, 15, 10)) == pytest.approx(50 / 150)
    assert box_iou((0, 0, 10, 10), (0, 0, 10, 10)) == 1
    assert box_iou((0, 0, 10, 10), (20, 20, 30, 30)) == 0  # both overlaps negative: no area


def test_recall_counts_true_boxes_of_the_right_label():
    plan = next(plan for plan in map(Plan, range(20)) if len(plan.objects) > 1)
    exhibit = Exhibit(np.zeros((1, 1, 3), np.uint8), plan)
    true = [(thing.label, thing.box) for thing in exhibit.plan.objects]
    assert box_recall([true[::-1]], [exhibit]) == 1
    assert box_recall([true[:1]], [exhibit]) == 1 / len(true)
    assert box_recall([[("road", box) for _, box in true]], [exhibit]) == 0
