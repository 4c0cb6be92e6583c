"""Code environments: function tasks, whole programs, repair over several turns, repositories."""
