import copy
import io
import math
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from galgaze.config import Augmentation, TrainSettings
from galgaze.errors import ConfigError
from galgaze.models.agcnn import AGCNN
from galgaze.models.network import AttentionNetwork, Examination
from galgaze.models.registry import create_network
from galgaze.models.training import (
    LabelledImages,
    Loss,
    WeightAverage,
    on_all_gpus,
    predict_logits,
    train_network,
)
from galgaze.tasks import QUESTIONS

SETTINGS = TrainSettings(field="f", epochs=4, batch_size=8, learning_rate=5e-3, central_epochs=1)
CPU = torch.device("cpu")
ANSWERS = sum(len(question.answers) for question in QUESTIONS)


def settings(**changes) -> TrainSettings:
    return SETTINGS.model_copy(update=changes)


def bars_and_blobs(count: int, seed: int) -> LabelledImages:
    """Class 0: a round blob; class 1: an elongated one, at any angle."""
    rng = np.random.default_rng(seed)
    rows, columns = np.indices((32, 32)) - 15.5
    label = np.arange(count) % 2
    images = []
    for kind in label:
        angle = rng.uniform(0, np.pi)
        u = columns * np.cos(angle) + rows * np.sin(angle)
        v = rows * np.cos(angle) - columns * np.sin(angle)
        images.append(np.exp(-((u / (7 if kind else 3.5)) ** 2) - (v / (1.8 if kind else 3.5)) ** 2))
    image = torch.from_numpy((np.array(images)[:, None] * 255).astype(np.uint8))
    return LabelledImages(image, torch.from_numpy(label))


def with_votes(data: LabelledImages) -> LabelledImages:
    """Votes that say what the image shows: bar or no bar; every fourth image without any."""
    votes = torch.zeros(len(data.label), ANSWERS)
    votes[:, [1, 4]] = 1  # featured, not edge on
    votes[:, 5:7] = math.nan  # nobody was asked about arms
    votes[:, 7] = data.label.float()
    votes[:, 9] = 1 - data.label.float()
    votes[::4] = math.nan
    return replace(data, votes=votes)


class Answering(AttentionNetwork):
    """An AG-CNN that answers the questions too, from its features."""

    def __init__(self):
        super().__init__()
        self.network = AGCNN(1, 2, gate_pooling="mean", dropout=0.2)
        self.answerer = torch.nn.Linear(54, ANSWERS)

    def examine(self, image: torch.Tensor) -> Examination:
        seen = self.network.examine(image)
        return replace(seen, answers=self.answerer(seen.features))


def fresh(kind=lambda: AGCNN(1, 2, gate_pooling="mean", dropout=0.2)):
    torch.manual_seed(3)
    return kind()


def train(of=SETTINGS, state=None, on_epoch=lambda record, state: None, votes=False, network=None):
    sides = [bars_and_blobs(64, 0), bars_and_blobs(32, 1)]
    if votes:
        sides = [with_votes(side) for side in sides]
    network = network or (fresh(Answering) if votes else fresh())
    return network, train_network(network, *sides, of, CPU, on_epoch, state)


def same_weights(first, second) -> bool:
    other = second.state_dict()
    return all(torch.equal(value, other[name]) for name, value in first.state_dict().items())


def torch_round_trip(state: dict) -> dict:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


# ---- learning


def test_learns_what_can_be_learnt():
    network, curve = train(settings(epochs=12, central_epochs=0))
    test = bars_and_blobs(64, 7)
    accuracy = (predict_logits(network, test.image).argmax(1) == test.label).float().mean()
    assert accuracy > 0.9
    assert curve[-1].training_loss < curve[0].training_loss


OPTIONS = {
    "plain": {},
    "weight average": {"weight_average": 0.9},
    "bfloat16": {"precision": "bfloat16"},
    "everything": {
        "weight_average": 0.8,
        "precision": "bfloat16",
        "class_balance": True,
        "label_smoothing": 0.1,
        "augmentation": Augmentation(noise=0.05, brightness=0.2),
    },
}


@pytest.mark.parametrize("votes", [False, True])
@pytest.mark.parametrize("name", OPTIONS)
def test_resumed_training_gives_the_same_network(name, votes):
    states = {}
    of = settings(epochs=3, **OPTIONS[name])

    def keep(record, state) -> None:
        states[record.epoch] = torch_round_trip(state())

    whole, curve = train(of, None, keep, votes)
    resumed, again = train(of, states[1], votes=votes)
    assert same_weights(whole, resumed)
    assert again == curve


def test_same_seed_same_network_and_another_seed_another():
    first, _ = train(settings(epochs=2))
    assert same_weights(first, train(settings(epochs=2))[0])
    assert not same_weights(first, train(settings(epochs=2, seed=2))[0])


@pytest.mark.parametrize("name", [name for name in OPTIONS if name != "plain"])
def test_options_change_the_training(name):
    plain, _ = train(settings(epochs=2))
    changed, _ = train(settings(epochs=2, **OPTIONS[name]))
    assert not same_weights(plain, changed)


def test_stops_when_nothing_improves():
    _, curve = train(settings(epochs=50, patience_epochs=2, learning_rate=1e-9))
    assert len(curve) < 50


def test_weights_of_epochs_on_centres_alone_are_not_kept():
    network, curve = train(settings(epochs=3, central_epochs=2))
    assert [record.central for record in curve] == [True, True, False]
    data = bars_and_blobs(32, 1)
    loss = F.cross_entropy(predict_logits(network, data.image), data.label)
    assert float(loss) == pytest.approx(curve[2].validation_loss, rel=1e-5)


def test_the_best_epoch_is_kept_and_the_last_is_in_the_state():
    states = {}
    data = bars_and_blobs(32, 1)
    contrary = LabelledImages(data.image, 1 - data.label)  # whatever is learnt makes it worse
    network = fresh()
    curve = train_network(
        network,
        bars_and_blobs(64, 0),
        contrary,
        settings(central_epochs=0, epochs=6),
        CPU,
        lambda record, state: states.update(last=copy.deepcopy(state())),
    )
    best = min(row.validation_loss for row in curve)
    assert best < 0.9 * curve[-1].validation_loss  # else this test shows nothing

    def loss_of(network) -> float:
        return float(F.cross_entropy(predict_logits(network, contrary.image), contrary.label))

    assert loss_of(network) == pytest.approx(best, rel=1e-5)
    network.load_state_dict(states["last"]["network"])
    assert loss_of(network) == pytest.approx(curve[-1].validation_loss, rel=1e-5)


def test_a_training_that_diverges_says_so():
    network = fresh()
    with torch.no_grad():
        next(network.parameters()).fill_(math.inf)
    with pytest.raises(ConfigError, match=r"diverged: in epoch 1 .* Lower `learning_rate`"):
        train(network=network)


def test_a_training_must_end_on_whole_images():
    with pytest.raises(ValueError, match=r"central_epochs \(4\) must be fewer than epochs \(4\)"):
        TrainSettings(field="f", epochs=4, central_epochs=4)


def test_predictions_do_not_depend_on_the_batch():
    network, _ = train(settings(epochs=2))
    image = bars_and_blobs(20, 5).image
    torch.testing.assert_close(
        predict_logits(network, image, 1), predict_logits(network, image, 20), rtol=1e-4, atol=1e-5
    )


def test_batch_normalisation_is_left_as_it_was_found():
    network, _ = train(settings(epochs=2))
    layers = [layer for layer in network.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
    assert {layer.momentum for layer in layers} == {0.1}
    assert all(layer.num_batches_tracked > 0 for layer in layers)


# ---- the loss


def test_without_options_the_loss_is_the_cross_entropy():
    logits, label = torch.randn(12, 3), torch.randint(3, (12,))
    torch.testing.assert_close(Loss(label, False).classes(logits, label), F.cross_entropy(logits, label))
    smooth = Loss(label, False, 0.2).classes(logits, label)
    torch.testing.assert_close(smooth, F.cross_entropy(logits, label, label_smoothing=0.2))


def test_images_without_a_class_do_not_count():
    logits, label = torch.randn(12, 3), torch.randint(3, (12,))
    label[::3] = -1
    known = label >= 0
    for balanced in (False, True):
        loss = Loss(label, balanced)
        torch.testing.assert_close(loss.classes(logits, label), loss.classes(logits[known], label[known]))
    logits.requires_grad_()
    nothing = Loss(label, False).classes(logits, torch.full((12,), -1))
    nothing.backward()
    assert float(nothing.detach()) == 0
    assert logits.grad.abs().max() == 0


def test_balanced_classes_count_alike():
    label = torch.tensor([0] * 90 + [1] * 10)
    of_class = torch.tensor([[2.0, 0, 0], [1, 0, 3]])  # the logits of all its images; a third class never occurs
    single = F.cross_entropy(of_class, torch.tensor([0, 1]), reduction="none")
    loss = Loss(label, True).classes(of_class[label], label)
    torch.testing.assert_close(loss, single.mean())
    assert not torch.isclose(Loss(label, False).classes(of_class[label], label), single.mean(), rtol=0.1)


def test_balance_finds_the_rare_class():
    data = bars_and_blobs(80, 0)
    rare = torch.cat([torch.arange(0, 80, 2), torch.arange(1, 8, 2)])  # 40 blobs, 4 bars
    data = LabelledImages(data.image[rare], data.label[rare])
    test = bars_and_blobs(64, 7)
    recall = {}
    for balanced in (False, True):
        network = fresh()
        train_network(network, data, bars_and_blobs(32, 1), settings(class_balance=balanced, epochs=3), CPU)
        logits = predict_logits(network, test.image)[test.label == 1]
        recall[balanced] = float(logits.softmax(1)[:, 1].mean())
    assert recall[True] > recall[False] + 0.1


def test_votes_teach_a_network_that_answers():
    network, curve = train(settings(epochs=10, central_epochs=0), votes=True)
    assert curve[-1].validation_question_loss < 0.5 * curve[0].validation_question_loss
    assert curve[-1].validation_loss > curve[-1].validation_question_loss
    data = with_votes(bars_and_blobs(64, 9))
    with torch.inference_mode():
        answers = network.eval().examine((data.image.float() / 255 - 0.5) / 0.5).answers
    assert ((answers[:, 7] > answers[:, 9]) == (data.label == 1)).float().mean() > 0.9


def test_votes_alone_are_enough():
    sides = [with_votes(bars_and_blobs(count, seed)) for count, seed in ((64, 0), (32, 1))]
    sides = [replace(side, label=torch.full_like(side.label, -1)) for side in sides]
    curve = train_network(fresh(Answering), *sides, settings(epochs=2), CPU)
    assert curve[-1].training_accuracy is None
    assert curve[-1].validation_accuracy is None
    assert curve[-1].validation_loss == curve[-1].validation_question_loss


def test_a_network_that_answers_nothing_has_no_question_loss():
    _, curve = train(settings(epochs=2))
    assert {row.validation_question_loss for row in curve} == {None}


# ---- averaged weights


def test_the_average_is_the_plain_mean_at_first_and_exponential_later():
    network = torch.nn.Linear(1, 1, bias=False)
    average = WeightAverage(network, 0.75)
    values = [4.0, 2.0, 6.0, 8.0, 0.0, 1.0]
    expected = 0.0
    for step, value in enumerate(values, start=1):
        network.weight.data.fill_(value)
        average.update()
        expected += (value - expected) * max(0.25, 1 / step)
        assert float(average.mean[0]) == pytest.approx(expected)
        if step <= 4:
            assert expected == pytest.approx(np.mean(values[:step]))


def test_the_average_takes_the_place_of_the_weights_and_gives_it_back():
    network = torch.nn.Linear(2, 2)
    average = WeightAverage(network, 0.5)
    before = [weight.clone() for weight in network.parameters()]
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(1)
    with average.in_place():
        assert all(torch.equal(a, b) for a, b in zip(network.parameters(), before, strict=True))
    assert all(torch.equal(a, b + 1) for a, b in zip(network.parameters(), before, strict=True))


def test_averaged_weights_are_what_is_validated_and_kept():
    states = {}
    of = settings(epochs=2, weight_average=0.95)
    network, curve = train(of, None, lambda record, state: states.update({record.epoch: copy.deepcopy(state())}))
    data = bars_and_blobs(32, 1)
    loss = F.cross_entropy(predict_logits(network, data.image), data.label)
    assert float(loss) == pytest.approx(curve[-1].validation_loss, rel=1e-5)
    kept = list(network.parameters())
    assert all(torch.equal(a, b) for a, b in zip(kept, states[2]["average"]["mean"], strict=True))
    raw = [states[2]["network"][name] for name, _ in network.named_parameters()]
    assert not all(torch.equal(a, b) for a, b in zip(kept, raw, strict=True))


# ---- precision, devices, the record


def test_bfloat16_trains_in_it_and_validates_in_float32():
    network = fresh()
    seen = set()
    network.stages[0][0].register_forward_hook(lambda module, given, made: seen.add((module.training, made.dtype)))
    network, curve = train(settings(epochs=2, precision="bfloat16"), network=network)
    assert seen == {(True, torch.bfloat16), (False, torch.float32)}
    assert {weight.dtype for weight in network.parameters()} == {torch.float32}
    assert all(math.isfinite(row.validation_loss) for row in curve)


def test_without_several_gpus_the_module_is_used_as_it_is():
    module = torch.nn.Linear(1, 1)
    assert on_all_gpus(module, CPU) is module


def test_the_record_tells_of_every_gate():
    _, curve = train(settings(epochs=2))
    for row in curve:
        assert len(row.gates) == 3
        for gate in row.gates:
            assert 0 <= gate.blank_share <= 1
            assert gate.entropy is None or 0 <= gate.entropy <= 1
            assert gate.area_share is None or 0 < gate.area_share <= 1
    assert set(asdict(curve[0])["gates"][0]) >= {"entropy", "area_share", "centre_distance", "blank_share"}


@pytest.mark.parametrize("normalisation", ["std_mean_norm", "tanh", "softmax", "sigmoid"])
def test_the_record_counts_attention_from_zero(normalisation):
    network = fresh(lambda: AGCNN(1, 2, gate_pooling="mean", dropout=0.0, normalisation=normalisation))
    _, curve = train(settings(epochs=2), network=network)
    assert all(gate.area_share is None or 0 < gate.area_share <= 1 for row in curve for gate in row.gates)


def test_a_network_without_gates_has_an_empty_record():
    _, curve = train(settings(epochs=2), network=fresh(lambda: AGCNN(1, 2, gates=0)))
    assert {row.gates for row in curve} == {()}


@pytest.mark.parametrize(
    ("architecture", "options"),
    [
        ("equivariant_agcnn", {"group": "C4", "widths": [2, 2, 2, 2], "kernel_size": 3, "gate_channels": 2}),
        ("attention_vgg", {"widths": [2, 2, 2, 4, 4, 4], "dropout": 0.2}),
        ("bar_network", {"widths": [2, 2, 2, 2], "gate_channels": 2, "backbone": "separable"}),
    ],
)
def test_every_architecture_trains_with_every_option(architecture, options):
    def make():
        return fresh(lambda: create_network({"name": architecture, **options}, 1, 2))

    of = settings(epochs=2, central_epochs=0, **OPTIONS["everything"])
    network, curve = train(of, votes=architecture == "bar_network", network=make())
    again, _ = train(of, votes=architecture == "bar_network", network=make())
    assert same_weights(network, again)
    assert not same_weights(network, make())
    assert all(math.isfinite(row.validation_loss) for row in curve)
    assert len(curve[0].gates) == 3
