"""Personal data in logs: found on a normalised copy, checked by its checksum or its label, and replaced."""
