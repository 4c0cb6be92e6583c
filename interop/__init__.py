"""Other people's programs: their results read and ours written, our environments in their hands."""

OURS = "vertigym"  # the key under which a log of another program keeps what that program has no field for
