"""Decision models as work over several turns: tools, a database, a customer to ask."""
