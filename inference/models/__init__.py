"""Built-in models. One file holds one whole model and its configuration; `registry` finds it by name."""
