"""Decision models as environments: the rule engine is the ground truth."""
