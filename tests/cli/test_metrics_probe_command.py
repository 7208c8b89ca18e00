"""`mobj metrics probe` on a real file of predictions."""

import json
from dataclasses import replace

import numpy as np
import pytest

from metrics.evaluation.baselines import truth_prediction
from multiobj_data.loading import batches, open_dataset
from multiobj_data.predictions import write_predictions


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """120 scenes of digits; predictions whose codes are the centres of the true masks; and some without codes."""
    from multiobj_data.generation.plan import Plan
    from multiobj_data.generation.running import generate

    folder = tmp_path_factory.mktemp("probe")
    generate(Plan.create("multi-mnist", {"digits": "bundled"}, splits={"test": 120}), folder / "digits")

    def answers(codes):
        for index, scenes in batches(open_dataset(folder / "digits", "test"), 50):
            answer = replace(truth_prediction(scenes), reconstruction=None)
            sizes = np.maximum(answer.masks.sum((2, 3)), 1)
            places = np.indices(answer.masks.shape[2:])
            centres = [(answer.masks * place).sum((2, 3)) / sizes for place in places]
            slots = np.stack(centres, axis=-1).astype(np.float32)
            yield index, replace(answer, slots=slots) if codes else answer

    write_predictions(folder / "codes.h5", answers(True))
    write_predictions(folder / "none.h5", answers(False))
    return folder


@pytest.fixture
def probe(mobj, folder):
    return lambda file, *more: mobj(
        "metrics",
        "probe",
        "--predictions",
        folder / file,
        "--data",
        folder / "digits",
        "--probe",
        "linear",
        *more,
    )


def test_tables_tell_factors_joint_scores_and_what_was_left_out(probe):
    result = probe("codes.h5", "--dci", "lasso")
    assert result.code == 0, result.err
    lines = {line.split()[0]: line.split() for line in result.out.splitlines() if line}
    assert lines["factor"] == ["factor", "score", "linear", "chance", "ceiling", "objects"]
    assert lines["x"][1] == "R²"
    assert float(lines["x"][2]) > 0.9
    assert lines["class"][1] == "accuracy"
    assert lines["linear"][1] == "1.000"
    assert "lasso" in lines
    assert "matched by masks and probed" in result.out


def test_json_is_one_document_and_nothing_else(probe):
    document = json.loads(
        probe("codes.h5", "--json", "--factor", "x", "--factor", "side", "--quantity", "side").out
    )
    assert document["kinds"] == {"x": "regression", "side": "regression"}
    assert document["scores"]["x"]["linear"] > 0.9
    assert document["protocol"]["split_by"] == "image"
    assert document["objects"]["images"] == 120


@pytest.mark.parametrize(
    ("file", "more", "code", "says"),
    [
        ("none.h5", (), 3, "fill in Prediction.slots"),
        ("nowhere.h5", (), 3, "there is none"),
        ("codes.h5", ("--factor", "clas"), 2, "Did you mean 'class'"),
        ("codes.h5", ("--min-iou", "0"), 2, "--min-iou"),
        ("codes.h5", ("--limit", "4"), 3, "no factor can be probed"),
        ("codes.h5", ("--factor", ""), 2, "--factor: expected a text"),
    ],
)
def test_errors_are_one_sentence(probe, file, more, code, says):
    result = probe(file, *more)
    assert result.code == code, result.err
    assert says in result.err
    assert result.out == ""
    assert "Traceback" not in result.err
