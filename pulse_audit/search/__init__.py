"""PULSE: search a generator's latent spheres for images that downscale to a given input."""
