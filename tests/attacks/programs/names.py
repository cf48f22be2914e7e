"""Tell what names the machine."""

from __future__ import annotations

import os
from pathlib import Path

from tried import record, tell, word

record("host name", os.uname().nodename)
for path in ("/etc/hostname", "/etc/machine-id", "/sys/class/dmi/id/product_uuid"):
    try:
        record(path, Path(path).read_text().strip())
    except OSError as error:
        record(path, word(error))
tell()
