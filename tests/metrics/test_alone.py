import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

GUARD = """
import sys
from importlib.abc import MetaPathFinder

class Refuse(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {refused!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Refuse())
"""

SCRIPT = """
import sys
import numpy as np
import metrics

file = np.load(sys.argv[1])
true, count = file["true"], file["count"]
predicted = metrics.labels_of_soft_masks(file["masks"])
true_boxes = metrics.boxes_of_labels(true, num_labels=4)
boxes = metrics.boxes_of_labels(predicted, num_labels=4)
found = ~np.isnan(boxes).any(2)
scores = {
    "ari_fg": metrics.adjusted_rand_index(true, predicted, foreground_only=True),
    "msc_fg": metrics.mean_segmentation_covering(true, predicted, foreground_only=True),
    "mbo": metrics.mean_best_overlap(true, predicted),
    "count": metrics.count_accuracy(count, found.sum(1)),
    "best_box": metrics.mean_best_box_overlap(true_boxes, count, boxes, found),
    "psnr": metrics.peak_signal_to_noise(file["image"], file["image"] / 2),
    "ssim": metrics.structural_similarity(file["image"], file["image"] / 2),
    "bits": metrics.bits_per_dimension(-np.ones(len(true)), (16, 16, 3)),
}
if "matched" in sys.argv:
    scores["mask_miou"] = metrics.matched_mask_iou(true, predicted)
    scores["box_miou"] = metrics.matched_box_iou(true_boxes, count, boxes, found)
for name, values in scores.items():
    mean = metrics.Mean()
    mean.update(values)
    print(name, mean.summary()["mean"], mean.summary()["skipped"])
"""

HEAVY = (
    "torch",
    "sklearn",
    "h5py",
    "matplotlib",
    "jinja2",
    "PIL",
    "click",
    "rich",
    "joblib",
    "pooch",
    "filelock",
)


@pytest.fixture
def masks(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    true = np.zeros((4, 16, 16), np.uint8)
    for image in range(4):
        for label in range(1, image + 1):  # 0, 1, 2 and 3 objects
            true[image, 5 * label - 4 : 5 * label, 2:9] = label
    soft = 0.4 * rng.dirichlet(np.ones(4), true.shape).transpose(0, 3, 1, 2)
    soft += 0.6 * np.eye(4)[true].transpose(0, 3, 1, 2)  # each pixel's own slot still wins
    images = rng.random((4, 16, 16, 3))
    file = tmp_path / "masks.npz"
    np.savez(file, true=true, masks=soft, count=np.arange(4), image=images)
    return file


def scores_of(refused: tuple[str, ...], *arguments: str) -> dict[str, list[float]]:
    code = GUARD.format(refused=set(refused)) + SCRIPT
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return {line.split()[0]: [float(part) for part in line.split()[1:]] for line in done.stdout.splitlines()}


def test_a_script_with_nothing_but_numpy_scores_masks_of_a_file(masks: Path) -> None:
    scores = scores_of((*HEAVY, "scipy"), str(masks))
    assert scores["ari_fg"] == scores["msc_fg"] == scores["mbo"] == scores["best_box"] == [1, 1]
    assert scores["count"] == [1, 0]
    assert 0 < scores["ssim"][0] < 1


def test_matching_needs_scipy_and_nothing_else(masks: Path) -> None:
    scores = scores_of(HEAVY, str(masks), "matched")
    assert scores["mask_miou"] == scores["box_miou"] == [1, 1]


def test_the_guard_refuses(masks: Path) -> None:
    code = GUARD.format(refused={"scipy"}) + SCRIPT
    done = subprocess.run([sys.executable, "-c", code, str(masks), "matched"], capture_output=True, text=True)
    assert done.returncode == 1
    assert "No module named 'scipy'" in done.stderr
