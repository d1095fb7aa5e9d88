"""How the built-in model is made: objects built by code, their captions, and the training run."""
