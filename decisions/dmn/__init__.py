"""DMN 1.1 to 1.6: read (`reader.py`), compiled (`boxed.py`, `table_reader.py`), decided (`graph.py`)."""
