"""What a notebook or a scikit-learn pipeline calls: the Learner, and one query."""
