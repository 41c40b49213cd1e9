"""Fetch large files so that they are whole or absent, and go on where a connection broke.

`client` connections, proxies, certificates · `hosts` politeness · `fetch` one file ·
`files` several files, dry runs, offline.
"""

from utgrec.data.download.client import DownloadConfig, make_client
from utgrec.data.download.fetch import Wanted, fetch
from utgrec.data.download.files import Listed, download, list_files
from utgrec.data.download.hosts import Hosts

__all__ = [
    "DownloadConfig",
    "Hosts",
    "Listed",
    "Wanted",
    "download",
    "fetch",
    "list_files",
    "make_client",
]
