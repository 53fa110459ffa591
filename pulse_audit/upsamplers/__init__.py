"""The methods on trial, other than PULSE itself."""
