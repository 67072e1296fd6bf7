"""Gaussian discriminant analysis with one covariance for all classes (PIAA, PVCL Stages I and III).

With a weight w_i for each row (in the paper its class probability p_ic), priors and D dimensions:

    mu_c = sum_i w_i x_i / sum_i w_i      over the rows of class c
    Sigma = unbiased covariance of the n rows, each minus its class mean
    Omega = D ((n - 1) Sigma + tr(Sigma) I)^-1          (Kubokawa and Srivastava)
    decision function   x.W + b,    W = Omega mu^T,    b_c = log(prior_c) - mu_c^T Omega mu_c / 2
"""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import LinAlgError, cho_factor, cho_solve
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data


class GaussianDiscriminantAnalysis(ClassifierMixin, BaseEstimator):
    """A scikit-learn classifier: one Gaussian for each class, one covariance for all.

    The classifier of PIAA's patch-based visual classifier learning (PVCL), of use on its own for
    any features. Everything is computed in float64 on the CPU.

    Parameters
    ----------
    prototypes : [C, D] array, or None
        The class-prototype fallback. With it the classes are 0..C-1, and a class without rows takes
        its prototype as its mean and adds no rows to the covariance. PIAA gives the text features.
    priors : [C] probabilities, or None
        Prior of each class, in the order of ``classes_``. None: all alike, as in the paper.
    shrinkage : "kubokawa", None, or a number from 0 to 1
        "kubokawa": the paper's ridge-type estimate of the precision,
        D ((n - 1) Sigma + tr(Sigma) I)^-1, positive definite even where n < D. Up to a factor
        it is the number s = D / (n - 1 + D) of the next line.
        A number s: the inverse of (1 - s) Sigma + s tr(Sigma)/D I, and None: the inverse of Sigma,
        both with divisor n, as in scikit-learn's ``LinearDiscriminantAnalysis(solver="lsqr")``.
    weigh_covariance : bool
        True: ``sample_weight`` counts rows everywhere, as in all of scikit-learn: a weight of 2 is
        the row given twice. False: weights enter the class means only, and each row counts once in
        the covariance; so the paper uses its class-membership weights p_ic.

    Attributes
    ----------
    classes_ : [C] labels.
    means_ : [C, D] class means mu.
    precision_ : [D, D] precision Omega.
    coef_ : [C, D] weights, W transposed. A row for each class, for two classes as well.
    intercept_ : [C] b.

    References
    ----------
    Kubokawa and Srivastava (2008), Estimation of the precision matrix of a singular Wishart
    distribution and its application in high-dimensional data, Journal of Multivariate Analysis 99.

    Examples
    --------
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
        self.prototypes = prototypes
        self.priors = priors
        self.shrinkage = shrinkage
        self.weigh_covariance = weigh_covariance

    def fit(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> GaussianDiscriminantAnalysis:
        """Learn means, precision, W and b.

        Parameters
        ----------
        X : [n, D] finite features.
        y : [n] labels; with prototypes, integers from 0 to C-1.
        sample_weight : [n] weights, 0 or more; None is 1 each. A row of weight 0 is left out. For
            the paper's class-membership weights give p_ic, c being the row's own label, and
            ``weigh_covariance=False``.

        Raises
        ------
        ValueError
            On NaN or infinite features, weights, priors or labels that do not fit, or a covariance
            that cannot be inverted (``shrinkage`` None or 0 and too few rows).
        """
        X, y = validate_data(self, X, y, dtype=[np.float64, np.float32])
        check_classification_targets(y)
        weights = _check_weights(sample_weight, len(X))
        if not weights.all():
            X, y, weights = X[weights > 0], y[weights > 0], weights[weights > 0]

        self.classes_, labels, means = self._classes(X, y)
        priors = self._log_priors(len(self.classes_))

        centred = X.astype(np.float64)  # the rows, from here on minus their class mean
        for c in np.unique(labels):
            rows = labels == c
            means[c] = weights[rows] @ centred[rows] / weights[rows].sum()
        centred -= means[labels]
        row_weights = weights if self.weigh_covariance else np.ones(len(X))
        n, total = row_weights.sum(), row_weights @ centred
        if self.weigh_covariance:
            centred *= np.sqrt(weights)[:, None]
        # About their own mean: (n - 1) Sigma.
        scatter = centred.T @ centred - np.outer(total, total) / n
        factor = cho_factor(self._inverse_precision(n, scatter, max(X.max(), -X.min())))

        self.means_ = means
        self.precision_ = cho_solve(factor, np.eye(X.shape[1]))
        self.coef_ = cho_solve(factor, means.T).T
        self.intercept_ = priors - 0.5 * np.einsum("cd,cd->c", means, self.coef_)
        return self

    def decision_function(self, X: ArrayLike) -> np.ndarray:
        """x.W + b: [n, C]; for two classes [n], second minus first, as all of scikit-learn."""
        logits = self._logits(X)
        return logits[:, 1] - logits[:, 0] if len(self.classes_) == 2 else logits

    def predict_proba(self, X: ArrayLike) -> np.ndarray:
        """[n, C] posterior probabilities, softmax_c(x.W + b)."""
        return softmax(self._logits(X), axis=1)

    def predict(self, X: ArrayLike) -> np.ndarray:
        """[n] the class of the largest decision value."""
        best = self._logits(X).argmax(axis=1)
        return self.classes_[best]

    def _logits(self, X: ArrayLike) -> np.ndarray:
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        return X @ self.coef_.T + self.intercept_

    def _classes(self, X: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The classes, each row's position among them, and the means to start from."""
        if self.prototypes is None:
            classes, labels = np.unique(y, return_inverse=True)
            return classes, labels, np.zeros((len(classes), X.shape[1]))
        means = np.array(self.prototypes, dtype=np.float64)
        if means.ndim != 2 or means.shape[1] != X.shape[1] or not np.isfinite(means).all():
            raise ValueError(
                f"prototypes must be a finite [C, {X.shape[1]}] array, as wide as X: "
                f"got shape {means.shape}."
            )
        classes = np.arange(len(means))
        if not np.isin(y, classes).all():
            raise ValueError(
                f"With prototypes the labels are the integers 0 to {len(means) - 1}: "
                f"got {np.setdiff1d(y, classes)[:5].tolist()}."
            )
        return classes, y.astype(np.int64), means

    def _log_priors(self, n_classes: int) -> np.ndarray:
        if self.priors is None:
            return np.full(n_classes, np.log(1 / n_classes))
        priors = np.asarray(self.priors, dtype=np.float64)
        if priors.shape != (n_classes,) or not (priors > 0).all() or abs(priors.sum() - 1) > 1e-6:
            raise ValueError(
                f"priors must be {n_classes} positive numbers that sum to 1: got {priors}."
            )
        return np.log(priors)

    def _inverse_precision(self, n: float, scatter: np.ndarray, scale: float) -> np.ndarray:
        """The positive definite matrix of which Omega is the inverse."""
        width = len(scatter)
        identity = np.eye(width)
        if np.trace(scatter) <= n * width * (8 * np.finfo(float).eps * scale) ** 2:
            warnings.warn(
                "No class has two different rows, so there is no covariance to learn: the identity "
                "stands in for the precision (nearest class mean).",
                stacklevel=3,
            )
            return identity
        if n <= 1:
            raise ValueError(
                f"sample_weight sums to {n:.3g}, and counts rows: give weights that sum to more "
                f"than 1, or weigh_covariance=False."
            )
        if isinstance(self.shrinkage, str) and self.shrinkage == "kubokawa":
            covariance = scatter / (n - 1)
            return ((n - 1) * covariance + np.trace(covariance) * identity) / width
        s = 0.0 if self.shrinkage is None else self.shrinkage
        if isinstance(s, str) or not 0 <= s <= 1:
            raise ValueError(
                f'shrinkage must be "kubokawa", None or a number from 0 to 1: got {s!r}.'
            )
        covariance = scatter / n
        matrix = (1 - s) * covariance + s * np.trace(covariance) / width * identity
        if not _invertible(matrix):
            raise ValueError(
                f"The covariance of these rows in {width} dimensions cannot be inverted with "
                f'shrinkage={self.shrinkage!r}: use shrinkage="kubokawa", or a number above 0.'
            )
        return matrix


def _check_weights(sample_weight: ArrayLike | None, n: int) -> np.ndarray:
    """[n] float64 weights, 1 each where none are given."""
    if sample_weight is None:
        return np.ones(n)
    weights = np.asarray(sample_weight, dtype=np.float64)
    if weights.shape != (n,):
        raise ValueError(
            f"sample_weight must be one number for each of the {n} rows: got shape {weights.shape}."
        )
    if not np.isfinite(weights).all() or (weights < 0).any() or not (weights > 0).any():
        raise ValueError(
            "sample_weight must be finite, 0 or more, and not all zero: some weights are not."
        )
    return weights


def _invertible(matrix: np.ndarray) -> bool:
    try:
        diagonal = np.diag(cho_factor(matrix)[0]) ** 2
    except LinAlgError:
        return False
    return diagonal.min() > len(matrix) * np.finfo(float).eps * diagonal.max()
