"""Geometry: the primitive set, its distance field, surfaces, simplification, unwrapping, baking, previews."""
