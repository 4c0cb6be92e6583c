"""The learner: a model and its optimizer, losses, advantages, batches, ranks."""
