//! ConfigMaps and Secrets in full; of Secrets no more than the sizes of their values.

use bulkhead_types::{ConfigMap, Secret};

use super::Page;

pub(super) fn config_map(page: &mut Page, map: &ConfigMap) {
    page.line("Immutable", if map.immutable { "yes" } else { "no" });
    page.section("Data", |page| {
        for (key, value) in &map.data {
            page.line(key, value);
        }
        for (key, value) in &map.binary_data {
            page.line(key, format!("{} bytes", value.len()));
        }
    });
}

pub(super) fn secret(page: &mut Page, secret: &Secret) {
    page.line("Type", secret.secret_type.as_str());
    page.line("Immutable", if secret.immutable { "yes" } else { "no" });
    page.section("Data", |page| {
        for (key, value) in &secret.data {
            page.line(key, format!("{} bytes", value.len()));
        }
    });
}
