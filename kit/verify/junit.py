"""JUnit XML, as CI systems read it: https://github.com/testmoapp/junitxml describes what they understand."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from kit.verify.report import Report

# Characters that XML 1.0 cannot hold, not even escaped: https://www.w3.org/TR/xml/#charsets
UNWRITABLE = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(report: Report) -> str:
    """The report as one test suite: a failed check is a failure, one that was not run is skipped, with the reason."""
    suite = ElementTree.Element(
        "testsuite",
        name=f"kit verify {report.image}",
        tests=str(len(report.checks)),
        failures=str(report.count("failed")),
        errors="0",
        skipped=str(report.count("not_run")),
        time=f"{sum(check.seconds for check in report.checks):.3f}",
    )
    for check in report.checks:
        group, _, name = check.name.partition(".")
        case = ElementTree.SubElement(
            suite, "testcase", classname=f"{report.image}.{group}", name=name, time=f"{check.seconds:.3f}"
        )
        detail = UNWRITABLE.sub("?", check.detail)
        if check.outcome == "failed":
            ElementTree.SubElement(case, "failure", message=detail.partition("\n")[0]).text = detail
        elif check.outcome == "not_run":
            ElementTree.SubElement(case, "skipped", message=detail)
        elif detail:
            ElementTree.SubElement(case, "system-out").text = detail
    root = ElementTree.Element("testsuites")
    root.append(suite)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"
