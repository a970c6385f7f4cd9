import numpy as np
import pandas as pd
import pytest
from benchmarks import mirabest


def rows(shift: float) -> pd.DataFrame:
    """Two folds of eight sources; logits that are right for all but the last of each."""
    label = np.tile([0, 1], 8)
    right = np.where(np.arange(16) % 8 == 7, -1.0, 1.0) * (2 * label - 1)
    return pd.DataFrame(
        {
            "source_id": [f"s{k}" for k in range(16)],
            "label": label,
            "confident": np.arange(16) % 4 < 2,
            "fold": np.repeat([1, 2], 8),
            "seed": 1,
            "fri_logit": shift - right,
            "frii_logit": shift + right,
            "fri_logit_one_view": -right,
            "frii_logit_one_view": right,
            "temperature": 1.0,
        }
    )


@pytest.mark.parametrize("shift", [0.0, 5.0])
def test_summary_of_known_predictions(shift):
    found = mirabest.summarise(rows(shift), "all")
    assert found["accuracy"] == pytest.approx(7 / 8)
    assert found["accuracy_error"] == pytest.approx(0)
    assert found["recall_FRI"] == 1
    assert found["recall_FRII"] == pytest.approx(3 / 4)
    assert found["sources"] == 16
    assert mirabest.summarise(rows(shift), "confident")["accuracy"] == 1


def test_network_stays_within_the_published_size():
    network = mirabest._network(mirabest.FINE_TUNING, None)
    assert sum(parameter.numel() for parameter in network.parameters()) <= 102_000
