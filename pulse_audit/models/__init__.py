"""Names to objects: arms, generators, attribute models and weights as the user writes them."""
