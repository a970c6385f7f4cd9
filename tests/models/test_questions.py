"""The loss against vote fractions, and what the answers say of bars."""

import math

import numpy as np
import pytest
import torch

from galgaze.models.questions import (
    ANSWERS,
    answer_fractions,
    answer_slices,
    asked_probability,
    bar_logit,
    barred_probability,
    question_loss,
)

# smooth featured artifact | edge-on yes no | arms yes no | bar strong weak no
VOTES = torch.tensor([[0.2, 0.7, 0.1, 0.1, 0.9, 0.6, 0.4, 0.5, 0.3, 0.2]])
LOGITS = torch.tensor([[0.3, 1.0, -0.5, -1.0, 0.5, 0.2, 0.1, 0.4, -0.2, 0.9]])
BAR = slice(7, 10)
NAN = float("nan")


def softmax(logits):
    odds = np.exp(np.asarray(logits, dtype=float))
    return odds / odds.sum()


def entropy(votes, fractions):
    return -sum(v * math.log(p) for v, p in zip(votes, fractions, strict=True))


def gradient(logits, votes):
    logits = logits.clone().requires_grad_()
    return torch.autograd.grad(question_loss(logits, votes), logits)[0]


def test_order():
    assert len(ANSWERS) == 10
    assert ANSWERS[1] == ("smooth_or_featured", "featured")
    assert ANSWERS[BAR] == (("bar", "strong"), ("bar", "weak"), ("bar", "no"))
    assert answer_slices() == {
        "smooth_or_featured": slice(0, 3), "disk_edge_on": slice(3, 5), "has_spiral_arms": slice(5, 7), "bar": BAR
    }  # fmt: skip


def test_loss_by_hand():
    votes, logits = VOTES[0].tolist(), LOGITS[0].tolist()
    asked = ((slice(0, 3), 1.0), (slice(3, 5), 0.7), (slice(5, 7), 0.7 * 0.9), (BAR, 0.7 * 0.9))
    expected = sum(share * entropy(votes[part], softmax(logits[part])) for part, share in asked)
    assert float(question_loss(LOGITS, VOTES)) == pytest.approx(expected, rel=1e-6)


def test_loss_is_least_where_the_answers_are_the_votes():
    assert gradient(VOTES.log(), VOTES).abs().max() < 1e-6
    least = float(question_loss(VOTES.log(), VOTES))
    assert least < float(question_loss(VOTES.log() + 0.1 * torch.randn(1, 10), VOTES))


def test_a_question_counts_as_often_as_it_was_asked():
    smooth = VOTES.clone()
    smooth[0, :3] = torch.tensor([0.9, 0.07, 0.03])  # featured a tenth as often
    torch.testing.assert_close(gradient(LOGITS, smooth)[:, BAR], gradient(LOGITS, VOTES)[:, BAR] / 10)
    edge_on = VOTES.clone()
    edge_on[0, 3:5] = torch.tensor([1.0, 0.0])
    assert (gradient(LOGITS, edge_on)[:, 5:] == 0).all()
    assert (gradient(LOGITS, edge_on)[:, :5] != 0).any()


def test_what_was_not_answered_contributes_nothing():
    unknown = torch.full((3, 10), NAN)
    together = question_loss(torch.cat([LOGITS, torch.randn(3, 10)]), torch.cat([VOTES, unknown]))
    torch.testing.assert_close(together, question_loss(LOGITS, VOTES))
    no_bar = VOTES.clone()
    no_bar[:, BAR] = NAN
    slope = gradient(LOGITS, no_bar)
    assert (slope[:, BAR] == 0).all()
    torch.testing.assert_close(slope[:, :7], gradient(LOGITS, VOTES)[:, :7])


def test_no_votes_at_all_give_0_and_a_gradient_of_0():
    votes = torch.full((2, 10), NAN)
    logits = torch.randn(2, 10)
    assert float(question_loss(logits, votes)) == 0
    assert (gradient(logits, votes) == 0).all()


@pytest.mark.parametrize("hidden", [[], [0, 2], [4], [7], [7, 8], [0, 1, 2], [3, 4, 7, 8, 9]])
@pytest.mark.parametrize("scale", [1.0, 200.0])
def test_gradients_are_finite_whatever_is_not_known(hidden, scale):
    votes = VOTES.repeat(2, 1)
    votes[0, hidden] = NAN
    assert torch.isfinite(question_loss(scale * torch.randn(2, 10), votes))
    assert torch.isfinite(gradient(scale * torch.randn(2, 10), votes)).all()


def test_bar_or_no_bar_trains_the_sum_of_strong_and_weak():
    votes = VOTES.clone()
    votes[:, [7, 8]] = NAN  # of Galaxy Zoo 2: no is 0.2, the rest is either
    strong, weak, no = softmax(LOGITS[0, BAR])
    others = VOTES.clone()
    others[:, BAR] = NAN
    difference = float(question_loss(LOGITS, votes) - question_loss(LOGITS, others))
    assert difference == pytest.approx(0.7 * 0.9 * entropy([0.8, 0.2], [strong + weak, no]), rel=1e-5)
    slope = gradient(LOGITS, votes)[0, BAR]
    assert float(slope[0] / slope[1]) == pytest.approx(strong / weak, rel=1e-4)  # their ratio is left alone


def test_one_answer_that_is_not_known_is_what_the_others_leave():
    votes = VOTES.clone()
    votes[:, [0, 3, 8]] = NAN
    torch.testing.assert_close(question_loss(LOGITS, votes), question_loss(LOGITS, VOTES))


def test_votes_on_bars_alone_count_in_full():
    votes = torch.full((1, 10), NAN)
    votes[:, BAR] = VOTES[:, BAR]
    expected = entropy(VOTES[0, BAR].tolist(), softmax(LOGITS[0, BAR]))
    assert float(question_loss(LOGITS, votes)) == pytest.approx(expected, rel=1e-6)


def test_half_precision_is_no_coarser():
    assert question_loss(LOGITS.bfloat16(), VOTES).dtype == torch.float32


def test_bar_logit_is_the_log_odds_of_strong_or_weak():
    strong, weak, no = softmax(LOGITS[0, BAR])
    assert float(bar_logit(LOGITS)) == pytest.approx(math.log((strong + weak) / no), rel=1e-6)
    assert float(barred_probability(LOGITS)) == pytest.approx(strong + weak, rel=1e-6)
    shifted = LOGITS.clone()
    shifted[:, BAR] += 3
    shifted[:, :7] += torch.randn(7)
    torch.testing.assert_close(bar_logit(shifted), bar_logit(LOGITS))


def test_fractions_and_how_often_a_question_is_asked():
    fractions = answer_fractions(LOGITS)
    for part in answer_slices().values():
        np.testing.assert_allclose(fractions[0, part], softmax(LOGITS[0, part]), rtol=1e-5)
    featured, from_above = float(fractions[0, 1]), float(fractions[0, 4])
    assert float(asked_probability(LOGITS, "smooth_or_featured")) == 1
    assert float(asked_probability(LOGITS, "disk_edge_on")) == pytest.approx(featured)
    assert float(asked_probability(LOGITS, "bar")) == pytest.approx(featured * from_above)
    with pytest.raises(ValueError, match="no question 'bulge'; known are smooth_or_featured"):
        asked_probability(LOGITS, "bulge")
