"""Files, figures and pages of a study; the first process alone writes them."""
