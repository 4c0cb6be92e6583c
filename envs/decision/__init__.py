"""The decision environment: one case in, one decision out; the rule engine is the ground truth."""
