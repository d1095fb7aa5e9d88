"""ASGI layers around the routes, outermost first: context, limits, authentication."""
