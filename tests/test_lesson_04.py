"""Notebook 04: its measures, figures, explorer and the checks of its exercises."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression

from piaa_utils.datasets import VOID
from piaa_utils.gda import GaussianDiscriminantAnalysis
from piaa_utils.lessons import nb04
from piaa_utils.lessons.checks import CheckFailed
from piaa_utils.lessons.features import Features
from piaa_utils.patch_labels import MIXED
from piaa_utils.plots import Figure, png_bytes
from piaa_utils.purification import learn_classifier, purify_released
from piaa_utils.selection import PatchBank

NAMES = ("cat", "dog", "bus")
C, D, GRID = 3, 6, 4


@pytest.fixture(scope="module")
def split() -> Features:
    """20 pictures of 16 patches near one of three directions."""
    rng = np.random.default_rng(0)
    truth = rng.integers(-1, C, (20, GRID**2))
    truth[0, :2] = MIXED, VOID
    centres = np.eye(C + 1, D)
    x = centres[truth.clip(-1)] + 0.25 * rng.standard_normal((20, GRID**2, D))
    x /= np.linalg.norm(x, axis=-1, keepdims=True)
    labels = np.stack([[(t == c).any() for c in range(C)] for t in truth]).astype(int)
    labels[0, 0] = 0
    patches = torch.from_numpy(x).float()
    return Features(patches.mean(1), {"scclip": patches}, labels, truth)


@pytest.fixture(scope="module")
def text() -> torch.Tensor:
    return torch.eye(C, D)


def filled(split, text, per_image=None) -> PatchBank:
    bank = PatchBank(C, k=40, temperature=5.0, per_image=per_image)
    x = split.patches["scclip"]
    bank.update(torch.nn.functional.normalize(x, dim=-1), text, range(len(x)))
    return bank


@pytest.fixture(scope="module")
def rows(split, text) -> nb04.Rows:
    return nb04.bank_rows(filled(split, text))


@pytest.fixture(scope="module")
def gda(rows, text) -> GaussianDiscriminantAnalysis:
    learner = GaussianDiscriminantAnalysis(prototypes=text.numpy(), weigh_covariance=False)
    return learner.fit(rows.X, rows.y, rows.p)


@pytest.fixture(scope="module")
def table(rows, split, text) -> nb04.Sweep:
    return nb04.sweep(rows, text.numpy(), split, counts=("all", 8, 2))


def test_clouds_are_drawn_with_what_the_classifiers_answer():
    X, y = nb04.clouds(30)
    good = GaussianDiscriminantAnalysis(shrinkage=None).fit(X, y)
    figure = nb04.clouds_figure(X, y, {"GDA": good, "logistic": LogisticRegression().fit(X, y)})
    assert "GDA puts" in figure.alt_text and len(figure.axes) == 2
    assert np.array_equal(nb04.clouds(30)[0], X) and not np.array_equal(nb04.clouds(30, 1)[0], X)


def test_composition_counts_each_row_once(rows, split):
    counts = nb04.composition(rows, split)
    assert counts.sum() == len(rows.y)
    i = 0
    kind = 0 if split.truth[rows.image[i], rows.patch[i]] == rows.y[i] else 1
    assert counts[rows.y[i], kind] > 0
    assert "%" in nb04.composition_figure(counts, NAMES).alt_text


def test_linear_gives_the_classifiers_own_decisions(rows):
    for learner in (GaussianDiscriminantAnalysis(), LogisticRegression()):
        learner.fit(rows.X, rows.y)
        W, b = nb04.linear(learner, C)
        logits = torch.from_numpy(rows.X).float() @ W + b
        np.testing.assert_allclose(logits, learner.decision_function(rows.X), atol=1e-3)


def test_a_class_that_was_never_seen_is_never_the_answer(rows):
    learner = GaussianDiscriminantAnalysis().fit(rows.X, rows.y)
    W, b = nb04.linear(learner, C + 1)
    assert W.shape == (D, C + 1) and b[C] == -torch.inf and (W[:, C] == 0).all()


def test_joined_is_the_gda_from_its_parts(gda, rows):
    W, b = nb04.joined(gda.means_, gda.precision_)
    own = rows.X @ gda.coef_.T + gda.intercept_ - np.log(1 / C)
    np.testing.assert_allclose(torch.from_numpy(rows.X).float() @ W + b, own, atol=1e-3)


def test_read_knows_a_perfect_reader(split):
    logits = torch.nn.functional.one_hot(torch.from_numpy(split.truth.clip(0)), C).double()
    logits[torch.from_numpy(split.truth < 0)] = 0
    reading = nb04.read(1000 * logits, split)
    assert reading.accuracy == 1 and 0 < reading.map <= 1
    assert nb04.read(-logits, split, scale=10).accuracy == 0


def test_sweep_equals_the_classifier(table, rows, split, text):
    x, truth = split.patches["scclip"].numpy(), split.truth
    for i, n in enumerate(table.rows):
        some = nb04.first_rows(rows, n)
        for s, found in ((0.1, table.accuracy[i, 5]), ("kubokawa", table.kubokawa[i, 1])):
            learner = GaussianDiscriminantAnalysis(text.numpy(), None, s, weigh_covariance=False)
            learner.fit(some.X, some.y, some.p)
            answer = learner.predict(x.reshape(-1, D)).reshape(truth.shape)
            assert found == pytest.approx((answer == truth)[truth >= 0].mean())
    assert table.condition[0, 5] == pytest.approx(
        np.linalg.cond(0.9 * np.diag(table.spectra[0]) + 0.1 * table.spectra[0].mean() * np.eye(D))
    )


def test_without_shrinkage_two_rows_a_class_have_no_inverse(table):
    assert np.isnan(table.accuracy[2, 0]) and np.isinf(table.condition[2, 0])
    assert table.condition[:, -1] == pytest.approx(1)
    assert "no inverse" not in nb04.shrinkage_figure(table).alt_text
    nothing = table._replace(accuracy=np.where(np.arange(9) == 0, np.nan, table.accuracy))
    assert any(t.get_text() == "no inverse" for t in nb04.shrinkage_figure(nothing).axes[0].texts)


def test_the_explorer_answers_for_all_its_values(table):
    seen = {}
    for s, n in ((0.0, "all"), (0.0, 2), (0.1, 8), (1.0, "all")):
        figure = nb04.explore_shrinkage(s, n, table)
        assert isinstance(figure, Figure) and "%" in figure.alt_text
        seen[s, n] = figure.axes[0].lines[1].get_ydata().tobytes(), figure.alt_text
    assert len({curve for curve, _ in seen.values()}) == 4
    assert len({words for _, words in seen.values()}) == 4
    png_bytes(figure)
    assert "no inverse" in nb04.explore_shrinkage(0.0, 2, table).alt_text
    names = [t.get_text() for t in figure.axes[1].texts]
    assert names == ["all rows", "8 rows a class", "2 rows a class"]


@pytest.mark.parametrize("s, n", [(0.25, "all"), (0.1, 3)])
def test_the_explorer_refuses_other_values(table, s, n):
    with pytest.raises(ValueError, match="must be one of"):
        nb04.explore_shrinkage(s, n, table)


def test_results_and_grid_figures_name_what_they_show():
    reading = nb04.Reading(0.5, 0.25)
    figure = nb04.results_figure({"test": {"text": reading}, "unseen": {"text": reading}})
    assert "unseen: text 50.0 and 25.0" in figure.alt_text
    figure = nb04.grid_figure({(m, s): reading for m in ("text", "bank") for s in ("none", "own")})
    assert "text with own 50.0 and 25.0" in figure.alt_text


def test_separation_is_the_area_under_the_curve(split):
    own = np.stack([split.truth == c for c in range(C)], axis=-1).astype(float)
    area = nb04.separation(own, split, least=2)
    assert np.nanmin(area) == 1 and np.isnan(area[0, 0])  # not labelled
    assert np.nanmax(nb04.separation(0 * own, split, least=2)) == 0.5
    assert np.isnan(nb04.separation(own, split, least=99)).all()


def test_maps_are_drawn_over_the_picture(split, tmp_path):
    Image.fromarray(np.full((32, 32, 3), 200, np.uint8)).save(tmp_path / "a.png")
    mask = np.full((32, 32), -1)
    mask[:8, :8] = 1
    data = SimpleNamespace(paths=[tmp_path / "a.png"], masks=lambda i: mask, class_names=NAMES)
    maps = {"text": split.patches["scclip"], "GDA": split.patches["scclip"] + 1}
    figure = nb04.maps_figure(data, [("largest gain", 0, 1)], maps, GRID)
    assert figure.alt_text.endswith("text and GDA, the object outlined. largest gain: dog.")
    png_bytes(figure)


def test_kept_figure_counts_all_and_none():
    figure = nb04.kept_figure({100: [3, 0, 2]}, {100: [3, 4, 5]}, NAMES)
    assert "T = 100: 1 classes keep all their rows and 1 none" in figure.alt_text


def test_likeness_compares_rows_of_a_class():
    X = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    rows = nb04.Rows(X, np.zeros(3, int), np.ones(3), np.array([0, 0, 1]), np.arange(3))
    assert nb04.likeness(rows) == (1, 0)
    assert np.isnan(nb04.likeness(nb04.Rows(*(column[1:] for column in rows)))[0])


def test_stage_three_is_the_packages(split, text, rows, gda):
    logits = torch.from_numpy(rows.X @ gda.coef_.T + gda.intercept_)
    W, b = nb04.linear(nb04.stage_three(rows, purify_released(logits, 0.01), text, gda), C)
    expected = learn_classifier(filled(split, text), text, "released", 0.01)
    torch.testing.assert_close(W, expected[0], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(b, expected[1], rtol=1e-3, atol=1e-3)
    nothing = purify_released(logits[:1], 1.0)
    assert nb04.stage_three(rows, nothing, text, gda) is gda


def test_exercise_1(capsys):
    X, y = nb04.clouds()
    mu = [X[y == c].mean(0) for c in range(3)]
    omega = np.linalg.inv(np.cov((X - np.stack(mu)[y]).T, bias=True))
    plain = [-0.5 * m @ omega @ m for m in mu]
    right = [p + np.log(prior) for p, prior in zip(plain, nb04.TOY_PRIORS, strict=True)]
    nb04.exercise_1(right)
    nb04.exercise_1(torch.tensor(np.array(right)).float())
    assert capsys.readouterr().out.count("✓ Exercise 1 is right.") == 2
    with pytest.raises(CheckFailed, match="entry 0.*with `priors` for pi"):
        nb04.exercise_1(np.array(plain) + np.log(1 / 3))
    with pytest.raises(CheckFailed, match="1/2 mu_c"):
        nb04.exercise_1(plain)
    for both in (np.array(right), torch.tensor(np.array(right))):
        with pytest.raises(CheckFailed, match="replace it, do not add"):
            nb04.exercise_1(both + np.log(1 / 3))
    with pytest.raises(CheckFailed, match="shape"):
        nb04.exercise_1(right[:2])
    with pytest.raises(CheckFailed, match="numbers are wanted"):
        nb04.exercise_1("b")


def test_exercise_2():
    def by_hand(q):
        if len(q) == 1:
            return [False]
        values = [float(v) for v in q]
        mean = sum(values) / len(values)
        std = (sum((v - mean) ** 2 for v in values) / (len(values) - 1)) ** 0.5
        return [v >= mean + std for v in values]

    nb04.exercise_2(by_hand)
    nb04.exercise_2(lambda q: (q >= q.mean() + q.std()) if len(q) > 1 else q > 9)
    with pytest.raises(CheckFailed, match=r"for the input \[0.5, 0.75, 0.75, 1.0\]"):
        nb04.exercise_2(lambda q: q >= q.mean())
    with pytest.raises(CheckFailed, match="1.0, 1.0, 1.0, 1.0"):
        nb04.exercise_2(lambda q: q > q.mean() + q.std())
    with pytest.raises(CheckFailed, match=r"for the input \[0.875\]"):
        nb04.exercise_2(lambda q: q >= q.mean() + (q.std() if len(q) > 1 else 0))
    with pytest.raises(CheckFailed, match=r"for the input \[0.25, 0.75, 1.0\]"):
        nb04.exercise_2(lambda q: q >= q.mean() + q.std(correction=0))
    with pytest.raises(CheckFailed, match="function"):
        nb04.exercise_2([True])


def test_exercise_3(capsys):
    nb04.exercise_3("C")
    assert "above 1" in capsys.readouterr().out
    for letter, why in {"a": "threshold", "b": "equal", "d": "bell"}.items():
        with pytest.raises(CheckFailed, match=why):
            nb04.exercise_3(letter)
    with pytest.raises(CheckFailed, match="letters"):
        nb04.exercise_3(None)


def test_exercise_4(gda, split, capsys):
    x, on_object = split.patches["scclip"], split.truth >= 0
    oracle = GaussianDiscriminantAnalysis(prototypes=np.eye(C, D))
    oracle.fit(x[torch.from_numpy(on_object)].numpy(), split.truth[on_object])
    shares = []
    for means, precision in ((oracle.means_, gda.precision_), (gda.means_, oracle.precision_)):
        logits = x.numpy() @ precision @ means.T
        logits -= 0.5 * np.einsum("cd,de,ce->c", means, precision, means)
        shares.append((logits.argmax(-1) == split.truth)[on_object].mean())
    nb04.exercise_4(shares, gda, oracle, split)
    nb04.exercise_4(torch.tensor(shares), gda, oracle, split)
    out = capsys.readouterr().out
    assert out.count("The oracle's means alone ") == 2
    learned, whole = (
        ((x @ W + b).argmax(-1).numpy() == split.truth)[on_object].mean()
        for W, b in (nb04.joined(g.means_, g.precision_) for g in (gda, oracle))
    )
    assert out.count(f"The whole oracle: {100 * (whole - learned):+.1f} points.") == 2
    with pytest.raises(CheckFailed, match="entry 1"):
        nb04.exercise_4([shares[0], shares[1] - 0.1], gda, oracle, split)
    with pytest.raises(CheckFailed, match="shape"):
        nb04.exercise_4(shares[0], gda, oracle, split)


def test_exercise_4_knows_the_other_order(gda, split):
    other = SimpleNamespace(means_=gda.means_[::-1].copy(), precision_=gda.precision_)
    x, on_object = split.patches["scclip"], torch.from_numpy(split.truth >= 0)
    shares = []
    for one in (other, gda):
        W, b = nb04.joined(one.means_, gda.precision_)
        right = (x @ W + b).argmax(-1) == torch.from_numpy(split.truth)
        shares.append(float(right[on_object].double().mean()))
    nb04.exercise_4(shares, gda, other, split)
    with pytest.raises(CheckFailed, match="in the other order"):
        nb04.exercise_4(shares[::-1], gda, other, split)


def test_a_half_that_loses_is_called_a_loss():
    assert nb04.halves_sentence(2.04, -1.5) == (
        "The oracle's means alone win 2.0 points; its precision alone loses 1.5:\n"
        "means and covariance belong together (notebook 01)."
    )
    assert "means alone lose 1.0 points" in nb04.halves_sentence(-1, 1)
    assert "together" not in nb04.halves_sentence(1, 1)
