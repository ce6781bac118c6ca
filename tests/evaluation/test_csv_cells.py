"""Names that a spreadsheet program would run are marked as text in predictions.csv, and read back as they were."""

import csv
import io

import numpy as np

from jaxser.evaluation import predictions
from jaxser.evaluation.predictions import Predictions


def test_predictions_with_formulas_as_names_are_read_back():
    classes = ("=sad", "+1", "neu")
    made = Predictions(
        classes=classes,
        utterance=np.array(["-3g5yACwYnA", "@b", "'=c"]),
        fold=np.array(["-a", "-1", "2"]),
        seed=np.array([0, 1, 2]),
        setting=np.array(["", "", ""]),
        split=np.array(["test", "test", "test"]),
        true=np.array([0, 1, 2]),
        predicted=np.array([2, 0, 0]),
        probabilities=np.eye(3)[[2, 0, 0]],
    )
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows(predictions.rows([made]))
    first, *_ = lines = file.getvalue().splitlines()[1:]
    assert first == "'-3g5yACwYnA,'-a,0,,test,'=sad,neu,0,0,1"
    assert lines[1].startswith("'@b,-1,1,,test,+1,'=sad")  # numbers stay numbers
    read = predictions.parse(file.getvalue(), classes)
    for name in ("utterance", "fold", "true", "predicted"):
        assert getattr(read, name).tolist() == getattr(made, name).tolist(), name
