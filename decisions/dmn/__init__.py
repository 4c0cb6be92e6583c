"""DMN, versions 1.1 to 1.6: read (`reader.py`), compiled (`boxed.py`, `decision_table.py`), evaluated (`graph.py`) with
FEEL."""
