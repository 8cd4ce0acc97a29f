"""What a model's answers show: judges, rates, membership and forecasts."""
