"""Whether an address can only be this machine."""

import ipaddress


def is_loopback(host: str) -> bool:
    """Tell whether nobody outside this machine can reach `host`, a name or an address."""
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback
