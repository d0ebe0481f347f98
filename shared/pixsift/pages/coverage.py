"""A reference set and a collection on one page: gaps and regions, with pictures."""

from collections.abc import Mapping

from pixsift.api_coverage import CoverageReport, Seen
from pixsift.pages.document import document, paragraph, section, table
from pixsift.pages.pictures import Picture, groups

_MEASURES = (
    "Distances are cosine distances: 0 is the same picture. A gap is a reference without an image "
    "of the collection within the radius. A region holds images that look alike and that lie "
    "farther than the radius from every reference."
)


def coverage_page(report: CoverageReport, pictures: Mapping[int, bytes | None]) -> str:
    """The page. pictures: thumbnails by object id."""
    return document(
        f"Collection {report.collection} and {report.references} references",
        [f"radius {report.radius:g}, as of turn {report.at_seq}"],
        paragraph(_MEASURES), _figures(report),
        section(f"Gaps: the farthest {len(report.gap_list)} of {report.gaps}", groups([
            (_picture(gap.reference, pictures, "reference"),
             [] if gap.nearest is None or gap.distance is None
             else [_picture(gap.nearest, pictures, f"nearest: {gap.distance:.4f}")])
            for gap in report.gap_list
        ])),
        section(f"Regions that no reference covers ({report.uncovered} images)", groups([
            (_picture(region.examples[0], pictures,
                      f"{region.images} image{'s' * (region.images != 1)}, "
                      f"{100 * region.share:.1f} %"),
             [_picture(seen, pictures, "") for seen in region.examples[1:]])
            for region in report.regions if region.examples
        ])),
    )  # fmt: skip


def _figures(report: CoverageReport) -> str:
    def quantiles(found: Mapping[str, float]) -> list[str]:
        return [f"{found[name]:.4f}" if name in found else "" for name in ("p10", "p50", "p90")]

    covered = report.references - report.gaps
    return table(
        ["", "all", "covered", "not covered", "distance p10", "p50", "p90"],
        [
            ["references", str(report.references), str(covered), str(report.gaps),
             *quantiles(report.reference_distances)],
            ["images of the collection", str(report.images),
             str(report.images - report.uncovered), str(report.uncovered),
             *quantiles(report.image_distances)],
        ],
    )  # fmt: skip


def _picture(seen: Seen, pictures: Mapping[int, bytes | None], caption: str) -> Picture:
    content = None if seen.object_id is None else pictures.get(seen.object_id)
    name = seen.uri.partition("?versionId=")[0].rsplit("/", 1)[-1]
    return Picture.inline(content, *([caption] if caption else []), name)
