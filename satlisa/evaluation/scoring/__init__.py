"""Statistics of samples, by the kind of answer, and how sure they are."""
