"""Other people's programs: their results read and ours written, our environments in their hands."""
