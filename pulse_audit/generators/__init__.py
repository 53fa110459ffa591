"""Face generators written for search: frozen weights, Gaussian latents, noise from outside."""
