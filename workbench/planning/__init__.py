"""Planning: what calls would take, from a config alone: units, passes and bytes without forwards."""
