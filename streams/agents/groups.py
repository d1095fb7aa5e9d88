"""Names of consumer groups that others than their members ask for; imports no Faust."""


def scheduler_group(domain: str) -> str:
    """Consumer group (and Faust app id) of a domain's scheduler."""
    return f"meshyard-scheduler-{domain}"
