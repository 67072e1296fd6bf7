"""The GDA against its formulas, scikit-learn's LDA and scikit-learn's rules."""

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.utils.estimator_checks import check_estimator

from piaa_utils.gda import GaussianDiscriminantAnalysis


def rows(n=90, width=7, n_classes=3, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(n) % n_classes)
    noise = rng.normal(size=(n, width)) * rng.uniform(1, 3, width)
    X = rng.normal(size=(n_classes, width))[y] + noise
    return X, y, rng.uniform(0.05, 1.0, n)


def literal(X, y, p, prototypes):
    """The paper's formulas, one by one, as they stand."""
    n_classes, D = prototypes.shape
    mu = np.array(prototypes, dtype=np.float64)
    for c in range(n_classes):
        if np.any(y == c):
            mu[c] = sum(p[i] * X[i] for i in np.flatnonzero(y == c)) / sum(p[y == c])
    Z = np.array([X[i] - mu[y[i]] for i in range(len(X))])
    n = len(Z)
    Sigma = np.cov(Z, rowvar=False, ddof=1)
    Omega = D * np.linalg.inv((n - 1) * Sigma + np.trace(Sigma) * np.eye(D))
    W = Omega @ mu.T
    b = np.array([np.log(1 / n_classes) - 0.5 * mu[c] @ Omega @ mu[c] for c in range(n_classes)])
    return mu, Omega, W, b


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("n", [90, 5])  # 5 rows in 7 dimensions: the covariance is singular
def test_the_papers_formulas(n, dtype):
    X, y, p = rows(n)
    given, X = X.astype(dtype), X.astype(dtype).astype(np.float64)
    prototypes = np.random.default_rng(1).normal(size=(5, 7))  # classes 3 and 4 have no rows
    gda = GaussianDiscriminantAnalysis(prototypes, weigh_covariance=False).fit(given, y, p)
    mu, Omega, W, b = literal(X, y, p, prototypes)
    np.testing.assert_allclose(gda.means_, mu, rtol=1e-12)
    np.testing.assert_allclose(gda.precision_, Omega, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(gda.coef_.T, W, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(gda.intercept_, b, rtol=1e-9)
    np.testing.assert_allclose(gda.decision_function(X), X @ W + b, rtol=1e-9, atol=1e-10)
    np.testing.assert_array_equal(gda.means_[3:], prototypes[3:])
    np.testing.assert_array_equal(gda.classes_, range(5))


@pytest.mark.parametrize("shrinkage", [None, 0.0, 0.3, 1.0])
@pytest.mark.parametrize("priors", [None, [0.2, 0.3, 0.5]])
def test_scikit_learns_lda(shrinkage, priors):
    X, y, _ = rows()  # as many rows of each class, so that LDA's mean of covariances is the pooled
    uniform = np.full(3, 1 / 3)
    gda = GaussianDiscriminantAnalysis(priors=priors, shrinkage=shrinkage).fit(X, y)
    lda = LinearDiscriminantAnalysis("lsqr", shrinkage=shrinkage, priors=uniform).fit(X, y)
    np.testing.assert_allclose(gda.coef_, lda.coef_, rtol=1e-8)
    # LDA weighs the covariances by the priors as well: ours only shift the intercept.
    shift = np.log(uniform if priors is None else priors) - np.log(uniform)
    np.testing.assert_allclose(gda.intercept_, lda.intercept_ + shift, rtol=1e-8)
    if priors is None:
        np.testing.assert_allclose(gda.predict_proba(X), lda.predict_proba(X), rtol=1e-7)
    X, y = X[(y > 0) | (np.arange(90) < 30)], y[(y > 0) | (np.arange(90) < 30)]
    if shrinkage is not None and shrinkage < 1:  # unequal classes and their priors
        gda = GaussianDiscriminantAnalysis(priors=np.bincount(y) / len(y), shrinkage=shrinkage)
        lda = LinearDiscriminantAnalysis("lsqr", shrinkage=shrinkage).fit(X, y)
        np.testing.assert_allclose(gda.fit(X, y).coef_, lda.coef_, rtol=1e-7)
        np.testing.assert_allclose(gda.intercept_, lda.intercept_, rtol=1e-7)


def test_weights_count_rows_unless_told_otherwise():
    X, y, _ = rows()
    counts = np.random.default_rng(3).integers(0, 4, len(X))
    again = np.repeat(np.arange(len(X)), counts)
    for shrinkage in ("kubokawa", 0.1):
        weighed = GaussianDiscriminantAnalysis(shrinkage=shrinkage).fit(X, y, counts)
        repeated = GaussianDiscriminantAnalysis(shrinkage=shrinkage).fit(X[again], y[again])
        np.testing.assert_allclose(weighed.coef_, repeated.coef_, rtol=1e-9)
    means_only = GaussianDiscriminantAnalysis(weigh_covariance=False).fit(X, y, counts)
    np.testing.assert_allclose(means_only.means_, weighed.means_, rtol=1e-12)
    assert np.abs(means_only.coef_ / repeated.coef_ - 1).max() > 0.01


def test_scikit_learns_rules():
    check_estimator(GaussianDiscriminantAnalysis(), on_skip=None)
    no_counts = {"check_sample_weight_equivalence_on_dense_data": "the paper's weights are none"}
    papers = GaussianDiscriminantAnalysis(weigh_covariance=False)
    check_estimator(papers, on_skip=None, expected_failed_checks=no_counts)


def test_without_scatter_the_nearest_mean_decides():
    X = np.array([[0.1, 0.2], [0.9, 0.4], [0.9, 0.4]])
    with pytest.warns(UserWarning, match="the identity stands in for the precision"):
        gda = GaussianDiscriminantAnalysis().fit(X, [0, 1, 1], [0.3, 0.1, 0.2])
    np.testing.assert_array_equal(gda.precision_, np.eye(2))
    np.testing.assert_array_equal(gda.predict([[0.2, 0.1], [0.8, 0.5]]), [0, 1])
    with pytest.warns(UserWarning, match="identity"):
        GaussianDiscriminantAnalysis(X[:2], weigh_covariance=False).fit(X[:1], [0])


@pytest.mark.parametrize("weigh_covariance", [False, True])
def test_a_shared_offset_does_no_harm(weigh_covariance):
    """Discriminant analysis has no origin; rows at 1e9 (a Unix time) keep seven digits."""
    rng, shift = np.random.default_rng(0), 1e9
    X = np.vstack([rng.normal(5 * c, 1, (200, 2)) for c in range(3)])
    y, p = np.repeat([0, 1, 2], 200), rng.uniform(0.5, 1, 600)
    prototypes = np.array([[0.0, 0], [5, 5], [10, 10], [20, 20]])  # class 3 has no rows
    options = {"weigh_covariance": weigh_covariance}
    at_0 = GaussianDiscriminantAnalysis(prototypes, **options).fit(X, y, p)
    there = GaussianDiscriminantAnalysis(prototypes + shift, **options).fit(X + shift, y, p)
    np.testing.assert_allclose(there.means_ - shift, at_0.means_, atol=1e-5)
    np.testing.assert_allclose(there.precision_, at_0.precision_, rtol=1e-5)
    np.testing.assert_allclose(there.predict_proba(X + shift), at_0.predict_proba(X), atol=1e-5)
    new = np.array([[1.0, 0], [5, 4], [11, 9], [19, 22]]) + shift
    np.testing.assert_array_equal(there.predict(new), [0, 1, 2, 3])
    wide = np.c_[X, np.full(600, shift)]  # a column without scatter
    constant = GaussianDiscriminantAnalysis(shrinkage=0.001).fit(wide, y)
    assert (constant.predict(wide) == y).mean() > 0.99
    two = GaussianDiscriminantAnalysis().fit(X[:400] + shift, np.array(["cat", "dog"])[y[:400]])
    np.testing.assert_array_equal(two.decision_function(X[:400] + shift) > 0, y[:400] == 1)
    np.testing.assert_array_equal(two.predict(X[:400] + shift) == "dog", y[:400] == 1)


X, Y, P = rows(12)


@pytest.mark.parametrize(
    ("options", "X", "y", "weights", "message"),
    [
        ({}, X, Y, -P, "0 or more"),
        ({}, X, Y, 0 * P, "not all zero"),
        ({}, X, Y, P * np.nan, "12 finite numbers"),
        ({}, X, Y, P / P.sum() / 2, "counts rows, and sums to 0.5"),
        ({"prototypes": np.zeros((3, 6))}, X, Y, None, r"\[C, 7\]: got \(3, 6\)"),
        ({"prototypes": np.zeros((2, 7))}, X, Y, None, r"labels are 0 to 1: got \[2\]"),
        ({"priors": [0.5, 0.5, 0.0]}, X, Y, None, "3 positive numbers that sum to 1"),
        ({"shrinkage": 1.5}, X, Y, None, "shrinkage must be"),
        ({"shrinkage": None}, X[:6], Y[:6], None, "Too few rows to invert"),
        ({"shrinkage": 0.0}, np.c_[X, np.ones(12)], Y, None, "Too few rows to invert"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(options, X, y, weights, message):
    with pytest.raises(ValueError, match=message):
        GaussianDiscriminantAnalysis(**options).fit(X, y, weights)
