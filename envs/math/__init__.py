"""Math environments: generated arithmetic and algebra, GSM8K's format, questions and answers, reasoning-gym."""
