"""Projects: from what a team has to an environment, suites, a recipe, and what to do next."""
