"""From a face to a low-resolution input: downscaling operators and corruptions."""
