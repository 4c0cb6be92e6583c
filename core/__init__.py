"""The words every other room speaks: tasks, messages, scores, trajectories; errors; seeds; files; configs."""
