"""The low-level verbs for programs elsewhere, in the protocol of the Tinker client."""
