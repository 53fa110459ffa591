"""The audit on trial: data with a known truth, and how often the estimators get it right."""
