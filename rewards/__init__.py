"""Verifiers: something the policy wrote in, a Score out."""
