"""Reports: a finished run turned into pages that open from disk."""

from microtome.reports.build import build_report
from microtome.reports.source import Progress, ReadImage, ReportRun, Together

__all__ = ["Progress", "ReadImage", "ReportRun", "Together", "build_report"]
