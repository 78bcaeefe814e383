"""A step whose loss or gradient is not finite: the decision, the diagnosis, and the report incident.md."""
