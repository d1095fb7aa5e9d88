"""File formats that users take away."""
