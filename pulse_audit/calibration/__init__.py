"""Coverage, error rates and power of the audit's estimators on simulated data of known truth."""
