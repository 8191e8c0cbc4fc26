"""Virtual try-on as a reusable Django app: a person, a garment, one picture, one credit."""
