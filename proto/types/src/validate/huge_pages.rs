//! Rules for huge pages (Kubernetes' own).

use super::{AMOUNT_MAX, Path, Report};
use crate::{Container, HugePageMedium, HugePageSize, PodSpec};

/// Checks the huge pages that a container asks for.
pub(super) fn container(container: &Container, path: &Path<'_>, report: &mut Report) {
    let pages = container.huge_pages();
    if pages.is_none() {
        return;
    }
    let resources = path.field("resources");
    let limits = resources.field("limits");
    for size in HugePageSize::ALL {
        let (bytes, page) = (pages.of(size), size.bytes());
        if bytes > AMOUNT_MAX {
            report.push(&limits.field(size.resource()), "is beyond any machine: at most 2^53 is allowed");
        } else if !bytes.is_multiple_of(page) {
            let reason = format!(
                "is {}, which is no whole number of pages of {}",
                crate::format_bytes(bytes),
                size.name()
            );
            report.push(&limits.field(size.resource()), reason);
        }
    }
    let amounts = container.requests.or(container.limits);
    if amounts.cpu_millis.is_none() && amounts.memory_bytes.is_none() {
        let (size, _) = pages.sizes().next().unwrap_or((HugePageSize::TwoMib, 0));
        let reason = "needs cpu or memory as well: huge pages alone are no container's";
        report.push(&limits.field(size.resource()), reason);
    }
}

/// Checks the medium of an emptyDir that is made of huge pages.
pub(super) fn medium(
    spec: &PodSpec,
    medium: HugePageMedium,
    memory: bool,
    path: &Path<'_>,
    report: &mut Report,
) {
    let name = medium.name();
    if memory {
        report.push(path, format!("is {name} and Memory"));
    }
    let pages = spec.huge_pages();
    if medium.size(pages).is_some() {
        return;
    }
    report.push(
        path,
        match (medium, pages.is_none()) {
            (HugePageMedium::Any, false) => {
                "is HugePages, and the pod asks for both sizes: say HugePages-2Mi or HugePages-1Gi".to_owned()
            }
            (HugePageMedium::Any, true) => "is HugePages, and no container asks for any".to_owned(),
            _ => format!("is {name}, and no container asks for pages of that size"),
        },
    );
}
