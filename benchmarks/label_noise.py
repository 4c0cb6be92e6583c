"""Wrong labels by our estimate and by cleanlab, on made-up calls whose wrong labels are known.

    python benchmarks/label_noise.py        # needs cleanlab and scikit-learn

Ours: ridge regression on TF-IDF, each call unseen in closed form. cleanlab: its confident learning on logistic
regression over the same TF-IDF, five folds. Then cleanlab's confident joint on our probabilities, which must be
ours.
"""

from typing import Any

import numpy as np

from vertigym.tests.test_traces_card import labelled
from vertigym.traces.label_noise import confident_joint, contradicted, noise_share, unseen_probabilities
from vertigym.traces.tf_idf import TfIdf


def counted(name: str, share: float, suspects: set[int], planted: set[int]) -> None:
    """One line of the table."""
    found = len(suspects & planted)
    print(
        f"  {name:24} share {share:.3f}   suspects {len(suspects):4}   "
        f"recall {found / max(1, len(planted)):.3f}   precision {found / max(1, len(suspects)):.3f}"
    )


def main() -> None:
    """Print the table."""
    from cleanlab.count import compute_confident_joint, estimate_joint
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_predict

    def cleanlabs(given: Any, probability: Any) -> tuple[float, set[int]]:
        joint, off = compute_confident_joint(given, probability, return_indices_of_off_diagonals=True)
        return 1 - float(np.trace(estimate_joint(given, probability, confident_joint=joint))), set(off)

    for wrong in (0.0, 0.05, 0.1, 0.25):
        rows, names = labelled(wrong, 4000)
        planted = {i for i, row in enumerate(rows) if row["id"] in names}
        questions = [str(row["messages"][0]["content"]) for row in rows]  # type: ignore[index]
        labels = sorted({str(row["completion"]) for row in rows})
        given = np.array([labels.index(str(row["completion"])) for row in rows])
        points = TfIdf(questions, 1000).vectors(questions)
        print(f"{len(planted) / len(rows):.3f} of 4,000 labels are wrong")
        ours = unseen_probabilities(points, given, len(labels))
        counts = confident_joint(given, ours)
        share = noise_share(counts, given)
        counted("ours", share, {i for i, *_ in contradicted(given, ours, share)}, planted)
        counted("cleanlab, same input", *cleanlabs(given, ours), planted)
        theirs = cross_val_predict(
            LogisticRegression(max_iter=1000), points, given, cv=5, method="predict_proba"
        )
        counted("cleanlab, logistic", *cleanlabs(given, theirs), planted)
        assert (compute_confident_joint(given, ours, calibrate=False) == counts).all()


if __name__ == "__main__":
    main()
