"""The HTML report: whole, self-contained, and safe with any name."""

import base64
import io
import math
import re
from dataclasses import replace
from html.parser import HTMLParser

import jinja2
import numpy as np
import pytest
from PIL import Image

from metrics import evaluate, write_report
from metrics.evaluation.floors import Truth
from metrics.evaluation.plots import HEIGHT, plot_rows
from metrics.evaluation.report import figure
from multiobj_data.errors import UsageError
from multiobj_data.scenes import Prediction

VOID = {"meta", "br", "image", "rect"}


class Page(HTMLParser):
    """Collects tags with attributes, and checks that every tag is closed."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.words = [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data.strip())

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture
def result(oracle, truth, batches, rng):
    boxes = (truth.boxes + rng.normal(size=(24, 3, 1))).astype(np.float32)
    noisy = replace(truth, boxes=boxes, count=rng.integers(0, 5, 24))
    return evaluate(oracle(noisy), batches(8), model="toy", dataset={"id": "toy-v1"}, examples=3)


@pytest.fixture
def page(result, tmp_path):
    write_report(result, tmp_path / "report.html")
    return Page((tmp_path / "report.html").read_text(encoding="utf-8"))


def test_nothing_outside_the_file_is_referred_to(page):
    assert page.all("image")
    for _, attributes in page.tags:
        for name in ("src", "href", "srcset", "action", "data"):
            assert attributes.get(name, "data:").startswith("data:")
    assert not {"script", "link", "iframe", "object", "base"} & {tag for tag, _ in page.tags}
    style = "".join(word for word in page.words if "--paper" in word)
    assert not re.search(r"url\(|@import|https?:", style)


def test_pictures_are_the_scenes(page, result):
    pictures = [a["href"] for a in page.all("image")]
    examples = result.worst + result.best
    assert len(pictures) == 2 * len(examples)
    for example, url in zip(examples, pictures[::2], strict=True):
        shown = Image.open(io.BytesIO(base64.b64decode(url.split(",")[1])))
        np.testing.assert_array_equal(np.asarray(shown), example.image[..., 0])


def test_boxes_are_drawn_where_they_are(page, result):
    def count(kind):
        return sum(a["class"] == kind for a in page.all("rect"))

    examples = result.worst + result.best
    assert count("solid") == sum(len(e.true_boxes) for e in examples)
    assert count("dashed") == 2 * sum(len(e.predicted_boxes) for e in examples)
    first = next(a for a in page.all("rect") if a["class"] == "solid")
    x0, y0, x1, y1 = result.worst[0].true_boxes[0]
    assert [float(first[name]) for name in ("x", "y", "width", "height")] == [x0, y0, x1 - x0, y1 - y0]


def test_every_figure_is_in_the_table(page, result):
    for name, summary in result.metrics.items():
        assert name in page.words
        assert figure(summary) in page.words


def test_every_metric_that_varies_is_plotted_over_difficulty(page, result):
    plots = [a["aria-label"] for a in page.all("svg") if " by " in a["aria-label"]]
    assert "box_miou by objects" in plots
    assert "box_miou by smallest distance (px)" in plots
    assert not [label for label in plots if label.startswith("log_likelihood_nats")]  # 0 everywhere
    drawn = {a["cy"] for a in page.all("circle")}
    assert all(0 <= float(y) <= HEIGHT for y in drawn)
    assert len(drawn) > 10


def test_points_are_where_the_means_are(result):
    row = next(row for row in plot_rows(result) if row.metric == "box_miou")
    low, high = float(row.bottom), float(row.top)
    plot = next(plot for plot in row.plots if plot.title == "objects")
    for point, each in zip(
        plot.points, result.by_difficulty("true_count")[1:], strict=True
    ):  # none without objects
        mean, stderr = (each.metrics["box_miou"][name] for name in ("mean", "stderr"))
        assert high - (high - low) * point.y / HEIGHT == pytest.approx(mean, rel=0.02)
        assert (point.low - point.high) / HEIGHT * (high - low) == pytest.approx(2 * stderr, rel=0.02)
        assert point.label == f"{each.low:.0f}"


def test_baselines_intervals_and_warnings_are_shown(oracle, truth, batches, tmp_path):
    result = evaluate(
        oracle(truth), batches(8), baselines=["chance", "truth"], baseline_images=10, interval=0.9
    )
    write_report(replace(result, warnings=("Look <twice>.",)), tmp_path / "report.html")
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert {"chance", "truth"} <= set(page.words)
    text = " ".join(page.words)
    assert "the 90 % bootstrap interval" in text
    assert "on the first 10 images only" in text
    assert "Look <twice>." in text
    assert f"[{result.metrics['count_accuracy']['low']:.4g}, " in text


def test_segments_are_shown_beside_the_image(batches, tmp_path, scenes):
    result = evaluate(Truth(), batches(8), examples=2)
    write_report(result, tmp_path / "report.html")
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    pictures = [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(a["href"].split(",")[1]))))
        for a in page.all("image")
    ]
    examples = result.worst + result.best
    assert len(pictures) == 4 * len(examples)
    for example, true, inferred in zip(examples, pictures[2::4], pictures[3::4], strict=True):
        np.testing.assert_array_equal(true, inferred)
        labels = scenes.segments[example.index - 100]
        assert len(np.unique(true.reshape(-1, 3), axis=0)) == len(np.unique(labels))


def test_names_are_escaped(oracle, truth, batches, tmp_path):
    hostile = "<script>alert('x')</script>&\"{{ 7 * 7 }}"
    result = evaluate(oracle(truth), batches(8), model=hostile, dataset={"id": hostile, hostile: [hostile]})
    write_report(result, tmp_path / "report.html")
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert not page.all("script")
    assert hostile in page.words


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_models_that_only_count_get_a_report(batches, tmp_path, channels):
    coloured = [(index, replace(part, image=part.image.repeat(channels, -1))) for index, part in batches(8)]
    result = evaluate(lambda images: Prediction(count=np.ones(len(images), int)), coloured)
    write_report(result, tmp_path / "report.html")
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "model gives no boxes and no presence" in page.words
    assert not [a for a in page.all("rect") if a["class"] == "dashed"]


def test_a_report_without_counts_or_examples(batches, tmp_path):
    def predict(images):
        return Prediction(reconstruction=np.zeros(images.shape))

    write_report(evaluate(predict, batches(8), examples=0), tmp_path / "report.html")
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert not page.all("image")
    assert "How many objects?" not in page.words


def test_an_interrupted_report_leaves_the_older_one(result, tmp_path):
    path = tmp_path / "report.html"
    path.write_text("older")
    broken = replace(result, protocol={**result.protocol, "definitions": {}})
    with pytest.raises(jinja2.UndefinedError, match="no attribute 'count_accuracy'"):
        write_report(broken, path)
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    assert path.read_text() == "older"


def test_a_missing_folder_is_a_usage_error(result, tmp_path):
    with pytest.raises(UsageError, match="create it first"):
        write_report(result, tmp_path / "no" / "report.html")


@pytest.mark.parametrize(
    ("mean", "stderr", "text"),
    [
        (0.96123, 0.00431, "0.9612 ± 0.0043"),
        (7060.91, 123.4, "7,061 ± 123"),
        (1.0, 0.0, "1 ± 0"),
        (0.5, math.nan, "0.5"),
        (math.nan, math.nan, "–"),
        (-0.31, 0.1, "−0.31 ± 0.10"),
        (-0.4112117157426, 9.6e-22, "−0.4112 ± 0"),
        (2.7e-12, 1.62e-12, "(2.7 ± 1.6)e−12"),
        (-0.00123456, 1.1e-7, "(−1.23456 ± 0.00011)e−3"),
        (1.4e-9, 3.2e-7, "(0.0 ± 3.2)e−7"),
    ],
)
def test_a_mean_is_rounded_by_its_standard_error(mean, stderr, text):
    assert figure({"mean": mean, "stderr": stderr, "n": 1, "skipped": 0}) == text
