"""The report of a refresh: its model and files (``store.py``), and its pages (``render.py``).

from langchain_uno.reports import read_report
report = read_report(home, release_id)
"""

from __future__ import annotations

from langchain_uno.reports.render import cluster_map
from langchain_uno.reports.store import Report, read_report, report_paths, write_report

__all__ = ["Report", "cluster_map", "read_report", "report_paths", "write_report"]
