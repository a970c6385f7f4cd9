"""Answers to Galaxy Zoo's questions: the loss against vote fractions, and what the answers say of bars.

A decision tree asks volunteers of bars only when they have seen a disc from above, so that votes on bars of a
smooth galaxy mean little. Each question's loss counts as often as the question was asked, the idea of Walmsley et
al. 2022 (MNRAS 509, 3966) and their Zoobot; here with the fractions of the votes in the place of their numbers.
"""

import torch

from galgaze.tasks import QUESTIONS

ANSWERS: tuple[tuple[str, str], ...] = tuple(
    (question.name, answer) for question in QUESTIONS for answer in question.answers
)
NEVER = -1e9  # a logit that takes no part


def answer_slices() -> dict[str, slice]:
    """Where each question's answers stand among `ANSWERS`."""
    slices, start = {}, 0
    for question in QUESTIONS:
        slices[question.name] = slice(start, start + len(question.answers))
        start += len(question.answers)
    return slices


def question_loss(answers: torch.Tensor, votes: torch.Tensor) -> torch.Tensor:
    r"""Cross-entropy between the votes and the answers, question by question.

    ``L = mean_images sum_q a_q H_q``, ``H_q = -sum_k v_k log p_k`` with the vote fractions v and p the softmax of the
    question's logits. ``a_q``, how often the question was asked, is the product of the votes for the answers that
    lead to it; where those are not known it is taken as asked, since there are votes.

    Answers whose votes are not known share what the known ones leave: they add ``-(1 - sum v_known) log sum
    p_unknown``. So a survey that asked only "bar or no bar" trains the sum of strong and weak and says nothing of
    how they part, and a question without any votes adds 0.

    Parameters
    ----------
    answers : torch.Tensor, shape (B, A)
        Logits, in the order of `ANSWERS`.
    votes : torch.Tensor, shape (B, A)
        Fractions in 0..1, those of a question summing to 1; NaN where not known.

    Returns
    -------
    torch.Tensor, shape ()
        The mean over the images that have any votes; 0, with a gradient of 0, where none has.
    """
    answers, votes = answers.float(), votes.float()  # logarithms of half-precision numbers are coarse
    known = ~votes.isnan()
    votes = votes.nan_to_num(0.0)
    total = answers.new_zeros(len(answers))
    for question in QUESTIONS:
        part = answer_slices()[question.name]
        entropy = _cross_entropy(answers[:, part], votes[:, part], known[:, part])
        total = total + _asked(question, votes, known) * entropy
    return total.sum() / known.any(dim=1).sum().clamp_min(1)


def _cross_entropy(logits: torch.Tensor, votes: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Of one question, (B,); votes of unknown answers are 0 here."""
    log_p = logits.log_softmax(dim=1)
    left = (1 - votes.sum(dim=1)).clamp_min(0) * (known.any(dim=1) & ~known.all(dim=1))
    log_p_left = log_p.masked_fill(known, NEVER).logsumexp(dim=1)  # finite even where all are known: no NaN gradients
    return -(votes * log_p).sum(dim=1) - left * log_p_left


def _asked(question, votes: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """How often the question was asked, (B,), by the votes for the answers before it."""
    asked = votes.new_ones(len(votes))
    for parent in question.asked_after:
        column = ANSWERS.index(parent)
        asked = asked * torch.where(known[:, column], votes[:, column], 1.0)
    return asked


def answer_fractions(answers: torch.Tensor) -> torch.Tensor:
    """Predicted vote fractions (B, A) from logits (B, A): the softmax, question by question."""
    return torch.cat([answers[:, part].softmax(dim=1) for part in answer_slices().values()], dim=1)


def asked_probability(answers: torch.Tensor, question: str) -> torch.Tensor:
    """How often a question would be asked, (B,) in 0..1, by the predicted answers (B, A logits) that lead to it.

    Raises
    ------
    ValueError
        If there is no such question.
    """
    by_name = {known.name: known for known in QUESTIONS}
    if question not in by_name:
        raise ValueError(f"no question {question!r}; known are {', '.join(by_name)}")
    fractions = answer_fractions(answers)
    return _asked(by_name[question], fractions, torch.ones_like(fractions, dtype=torch.bool))


def bar_logit(answers: torch.Tensor) -> torch.Tensor:
    """Log-odds (B,) of a bar, strong or weak, against none: ln((p_strong + p_weak) / p_no). From logits (B, A).

    The score whose saliency shows the bar; Bhambra, Joachimi & Lahav 2022 (MNRAS 511, 5032) take the logit of
    "barred" likewise. Infinitely often differentiable.
    """
    column = {answer: ANSWERS.index(("bar", answer)) for answer in ("strong", "weak", "no")}
    barred = torch.logsumexp(answers[:, [column["strong"], column["weak"]]], dim=1)
    return barred - answers[:, column["no"]]


def barred_probability(answers: torch.Tensor) -> torch.Tensor:
    """Share (B,) of those asked about bars who would see one, strong or weak. From logits (B, A)."""
    return bar_logit(answers).sigmoid()
