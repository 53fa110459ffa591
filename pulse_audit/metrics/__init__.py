"""What is measured on an output beside its original."""
