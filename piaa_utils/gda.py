"""Gaussian discriminant analysis with one covariance for all classes (PIAA, PVCL Stages I and III).

With a weight w_i for each row (in the paper its class probability p_ic), priors and D dimensions:

    mu_c = sum_i w_i x_i / sum_i w_i      over the rows of class c
    Sigma = unbiased covariance of the n rows, each minus its class mean
    Omega = D ((n - 1) Sigma + tr(Sigma) I)^-1          (Kubokawa, Srivastava 2008)
    decision function   x.W + b,    W = Omega mu^T,    b_c = log(prior_c) - mu_c^T Omega mu_c / 2

`predict` works relative to the rows' mean: far from 0, rounding would drown what tells them apart.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import cho_factor, cho_solve
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data


class GaussianDiscriminantAnalysis(ClassifierMixin, BaseEstimator):
    """A scikit-learn classifier: one Gaussian for each class, one covariance for all; float64.

    prototypes : [C, D], or None. With them (PIAA's are the text) the classes are 0..C-1, and a
        class without rows takes its prototype as its mean and adds nothing to the covariance.
    priors : [C] probabilities, in the order of ``classes_``; None: all alike, as in the paper.
    shrinkage : "kubokawa", the paper's precision, see above. A number s from 0 to 1: the inverse of
        (1 - s) Sigma + s tr(Sigma)/D I, and None: the inverse of Sigma, both with divisor n, as in
        scikit-learn's ``LinearDiscriminantAnalysis(solver="lsqr")``.
    weigh_covariance : whether ``sample_weight`` counts rows, as in all of scikit-learn; False: it
        enters the class means only, as the paper's p_ic do.

    Learned: ``classes_`` [C] labels; ``means_`` [C, D], mu; ``precision_`` [D, D], Omega; ``coef_``
    [C, D], W transposed; ``intercept_`` [C], b.

    >>> X = [[1.0, 0.0], [0.8, 0.2], [0.0, 1.0], [0.2, 0.8]]
    >>> gda = GaussianDiscriminantAnalysis().fit(X, [0, 0, 1, 1])
    >>> gda.predict([[0.9, 0.3]])
    array([0])
    >>> text = [[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]  # no row of class 2: its text stands in
    >>> gda = GaussianDiscriminantAnalysis(prototypes=text).fit(X, [0, 0, 1, 1])
    >>> gda.predict([[-0.9, 0.1]])
    array([2])
    """

    def __init__(
        self,
        prototypes: ArrayLike | None = None,
        priors: ArrayLike | None = None,
        shrinkage: str | float | None = "kubokawa",
        weigh_covariance: bool = True,
    ) -> None:
        self.prototypes, self.priors = prototypes, priors
        self.shrinkage, self.weigh_covariance = shrinkage, weigh_covariance

    def fit(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> GaussianDiscriminantAnalysis:
        """Learn means, precision, W and b from [n, D] finite features and their [n] labels.

        sample_weight : [n] weights, 0 (the row is left out) or more; None is 1 each. What does not
            fit, and a covariance that cannot be inverted, are a ValueError.
        """
        rows, labels = validate_data(self, X, y, dtype=np.float64)
        check_classification_targets(labels)
        size = len(rows)
        weights = np.ones(size) if sample_weight is None else np.asarray(sample_weight, np.float64)
        fine = weights.shape == (size,) and np.isfinite(weights).all() and (weights >= 0).all()
        if not fine or not weights.any():
            wanted = f"{size} finite numbers, 0 or more, not all zero"
            raise ValueError(f"sample_weight must be {wanted}.")
        used = weights > 0
        rows, weights = rows[used], weights[used]
        self.classes_, labels, means = self._classes(rows, labels[used])
        C = len(means)
        priors = np.asarray([1 / C] * C if self.priors is None else self.priors, np.float64)
        if priors.shape != (C,) or not (priors > 0).all() or abs(priors.sum() - 1) > 1e-6:
            raise ValueError(f"priors must be {C} positive numbers that sum to 1.")
        log_priors = np.log(priors)
        self.centre_ = rows.mean(axis=0)
        Z = rows - self.centre_
        for c in np.unique(labels):
            of_c = labels == c
            means[c] = self.centre_ + weights[of_c] @ Z[of_c] / weights[of_c].sum()
        centred = means - self.centre_
        Z -= centred[labels]
        counts = weights if self.weigh_covariance else np.ones(len(Z))
        n, total = counts.sum(), counts @ Z
        scatter = (counts[:, None] * Z).T @ Z - np.outer(total, total) / n  # (n - 1) Sigma
        factor = cho_factor(self._inverse_precision(n, scatter, np.abs(rows).max()))
        self.means_ = means
        self.precision_ = cho_solve(factor, np.eye(len(scatter)))
        self.coef_, self.intercept_ = _linear(factor, means, log_priors)
        self._centred = _linear(factor, centred, log_priors)
        return self

    def decision_function(self, X: ArrayLike) -> np.ndarray:
        """x.W + b: [n, C]; for two classes [n], second minus first, as all of scikit-learn."""
        about_centre = self._logits(X)
        if len(self.classes_) == 2:
            return np.diff(about_centre)[:, 0]
        return np.asarray(X, dtype=np.float64) @ self.coef_.T + self.intercept_

    def predict_proba(self, X: ArrayLike) -> np.ndarray:
        """[n, C] posterior, softmax_c(x.W + b)."""
        return softmax(self._logits(X), axis=1)

    def predict(self, X: ArrayLike) -> np.ndarray:
        """[n] the class of the largest decision value."""
        best = self._logits(X).argmax(axis=1)  # first: it checks that this is fitted
        return self.classes_[best]

    def _logits(self, X: ArrayLike) -> np.ndarray:
        """x.W + b about the centre: less, at each x, what all classes share."""
        check_is_fitted(self)
        W, b = self._centred
        return (validate_data(self, X, dtype=np.float64, reset=False) - self.centre_) @ W.T + b

    def _classes(self, X: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The classes, each row's position among them, and the means to start from."""
        if self.prototypes is None:
            classes, labels = np.unique(y, return_inverse=True)
            if len(classes) < 2:
                raise ValueError(f"There is one class alone, {classes[0]}: give rows of another.")
            return classes, labels, np.zeros((len(classes), X.shape[1]))
        means = np.array(self.prototypes, dtype=np.float64)
        if means.shape[1:] != X.shape[1:] or not np.isfinite(means).all():
            raise ValueError(f"prototypes must be finite, [C, {X.shape[1]}]: got {means.shape}.")
        classes = np.arange(len(means))
        if wrong := np.setdiff1d(y, classes).tolist():
            raise ValueError(f"With prototypes labels are 0 to {len(means) - 1}: got {wrong[:5]}.")
        return classes, y.astype(np.int64), means

    def _inverse_precision(self, n: float, scatter: np.ndarray, largest: float) -> np.ndarray:
        """The positive definite matrix of which Omega is the inverse."""
        width, s, identity = len(scatter), self.shrinkage, np.eye(len(scatter))
        if np.trace(scatter) <= n * width * (8 * np.finfo(float).eps * largest) ** 2:
            what = "No class has two different rows: the identity stands in for the precision."
            warnings.warn(what, stacklevel=3)
            return identity
        if n <= 1:
            raise ValueError(f"sample_weight counts rows, and sums to {n:.3g}: give more than 1.")
        if s == "kubokawa":
            return (scatter + np.trace(scatter) / (n - 1) * identity) / width
        s = 0.0 if s is None else s
        if isinstance(s, str) or not 0 <= s <= 1:
            raise ValueError('shrinkage must be "kubokawa", None or a number from 0 to 1.')
        matrix = ((1 - s) * scatter + s * np.trace(scatter) / width * identity) / n
        if np.linalg.matrix_rank(matrix, hermitian=True) < width:
            raise ValueError('Too few rows to invert their covariance: use shrinkage="kubokawa".')
        return matrix


def _linear(factor: Any, means: np.ndarray, log_priors: np.ndarray) -> tuple:
    """W transposed [C, D] and b [C] of means [C, D]."""
    W = cho_solve(factor, means.T).T
    return W, log_priors - 0.5 * (means * W).sum(axis=1)
