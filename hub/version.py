"""Which release this is: of the installed distribution, else of the source tree."""

import functools
from importlib import metadata


@functools.cache
def version() -> str:
    """Return the version of the distribution `shanmen`."""
    try:
        return metadata.version("shanmen")
    except metadata.PackageNotFoundError:
        return "0.1.0"
