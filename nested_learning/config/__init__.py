"""The configuration of a run as typed values, the registry of options, and the YAML files they come from."""
