"""What an audit says about fairness: arrays in, estimates out. Numpy and scipy only."""
