//! Rules for how pods are called, and whom they ask for names: Kubernetes', in its words.

use super::{Path, Report};
use crate::{
    DNS_NAMESERVERS_MAX, DNS_OPTIONS_MAX, DNS_SEARCH_BYTES_MAX, DNS_SEARCHES_MAX, DnsConfig, DnsPolicy,
    HOST_ALIASES_MAX, Name, PodSpec, is_dns_subdomain,
};

/// Longest name or value of an option, in bytes.
const OPTION_BYTES_MAX: usize = 63;

/// Checks how a pod is called.
pub(super) fn pod(spec: &PodSpec, path: &Path<'_>, report: &mut Report) {
    let Some(naming) = spec.naming() else { return };
    if let Some(subdomain) = &naming.subdomain {
        report.check(&path.field("subdomain"), Name::new(subdomain).map(drop));
    }
    let aliases = path.field("hostAliases");
    report.at_most(&aliases, "aliases", naming.host_aliases.len(), HOST_ALIASES_MAX);
    for (index, alias) in naming.host_aliases.iter().enumerate() {
        let alias_path = aliases.index(index);
        let path = alias_path.field("hostnames");
        report.at_most(&path, "names", alias.hostnames.len(), HOST_ALIASES_MAX);
        for (index, name) in alias.hostnames.iter().enumerate() {
            if !is_dns_subdomain(name) {
                report.push(&path.index(index), subdomain_rule(name));
            }
        }
    }
    let path = path.field("dnsConfig");
    let is_none = naming.dns_policy == Some(DnsPolicy::None);
    match &naming.dns_config {
        None if is_none => report.push(&path, "must provide `dnsConfig` when `dnsPolicy` is None"),
        None => {}
        Some(config) => {
            if is_none && config.nameservers.is_empty() {
                let reason = "must provide at least one DNS nameserver when `dnsPolicy` is None";
                report.push(&path.field("nameservers"), reason);
            }
            dns_config(config, &path, report);
        }
    }
}

fn dns_config(config: &DnsConfig, path: &Path<'_>, report: &mut Report) {
    if config.nameservers.len() > DNS_NAMESERVERS_MAX {
        let reason = format!("must not have more than {DNS_NAMESERVERS_MAX} nameservers");
        report.push(&path.field("nameservers"), reason);
    }
    let searches = path.field("searches");
    if config.searches.len() > DNS_SEARCHES_MAX {
        report.push(&searches, format!("must not have more than {DNS_SEARCHES_MAX} search paths"));
    }
    let bytes = config.searches.iter().map(|one| one.len() + 1).sum::<usize>().saturating_sub(1);
    if bytes > DNS_SEARCH_BYTES_MAX {
        let reason = format!(
            "must not have more than {DNS_SEARCH_BYTES_MAX} characters (including spaces) in the search list"
        );
        report.push(&searches, reason);
    }
    for (index, one) in config.searches.iter().enumerate() {
        if !is_search(one) {
            report.push(&searches.index(index), subdomain_rule(one));
        }
    }
    let options = path.field("options");
    report.at_most(&options, "options", config.options.len(), DNS_OPTIONS_MAX);
    for (index, option) in config.options.iter().enumerate() {
        let path = options.index(index);
        if option.name.is_empty() {
            report.push(&path.field("name"), "must not be empty");
        }
        let texts = [("name", Some(&option.name)), ("value", option.value.as_ref())];
        for (field, text) in texts.into_iter().filter_map(|(field, text)| Some((field, text?))) {
            // They become words of a line.
            if text.len() > OPTION_BYTES_MAX || !text.bytes().all(|b| b.is_ascii_graphic()) {
                let reason =
                    format!("must have at most {OPTION_BYTES_MAX} printable ASCII characters without spaces");
                report.push(&path.field(field), reason);
            }
        }
    }
}

/// A search domain: the root, or labels with an optional dot at their end; an underscore is fine, as since Kubernetes 1.34.
fn is_search(text: &str) -> bool {
    text == "." || is_dns_subdomain(&text.strip_suffix('.').unwrap_or(text).replace('_', "x"))
}

fn subdomain_rule(text: &str) -> String {
    format!(
        "{:?}: a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and \
         end with an alphanumeric character",
        super::pod::cut(text)
    )
}

/// Bytes of it, roughly.
pub(super) fn bytes(spec: &PodSpec) -> usize {
    let Some(naming) = spec.naming() else { return 0 };
    let aliases =
        naming.host_aliases.iter().map(|one| 32 + one.hostnames.iter().map(|n| n.len() + 16).sum::<usize>());
    let config = naming.dns_config.iter().map(|config| {
        let options =
            config.options.iter().map(|one| one.name.len() + one.value.as_ref().map_or(0, String::len) + 16);
        let searches = config.searches.iter().map(|one| one.len() + 16);
        searches.chain(options).sum::<usize>() + config.nameservers.len() * 32
    });
    naming.subdomain.as_ref().map_or(0, |name| name.len()) + aliases.chain(config).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use smol_str::SmolStr;

    use super::*;
    use crate::{DnsOption, HostAlias, PodNaming, PodOptions, Rare};

    fn check(naming: PodNaming, expected: &[&str]) {
        let options = PodOptions { naming: Rare::some(naming), ..PodOptions::default() };
        let spec = PodSpec { options: Rare::some(options), ..PodSpec::default() };
        let mut report = Report::default();
        pod(&spec, &Path::Root.field("spec"), &mut report);
        let found: Vec<String> =
            report.errors.iter().map(|error| format!("{} {}", error.path, error.reason)).collect();
        assert_eq!(found, expected);
    }

    fn config(nameservers: usize, searches: Vec<String>, options: &[(&str, &str)]) -> PodNaming {
        let option = |(name, value): &(&str, &str)| DnsOption {
            name: (*name).to_owned(),
            value: Some((*value).to_owned()).filter(|value| !value.is_empty()),
        };
        let config = DnsConfig {
            nameservers: vec!["10.0.0.1".parse().expect("an address"); nameservers],
            searches,
            options: options.iter().map(option).collect(),
        };
        PodNaming { dns_policy: Some(DnsPolicy::None), dns_config: Some(config), ..PodNaming::default() }
    }

    #[test]
    fn mistakes_are_told_in_kubernetes_words() {
        let text = |text: &str| vec![text.to_owned()];
        check(config(3, text("a.example."), &[("ndots", "5"), ("rotate", "")]), &[]);
        check(config(1, vec![".".into(), "_tcp.x_y.example".into()], &[]), &[]);
        check(config(4, vec![], &[]), &["spec.dnsConfig.nameservers must not have more than 3 nameservers"]);
        check(
            config(0, vec![], &[]),
            &["spec.dnsConfig.nameservers must provide at least one DNS nameserver when `dnsPolicy` is None"],
        );
        check(
            PodNaming { dns_policy: Some(DnsPolicy::None), ..PodNaming::default() },
            &["spec.dnsConfig must provide `dnsConfig` when `dnsPolicy` is None"],
        );
        check(
            config(1, vec!["a".to_owned(); 33], &[]),
            &["spec.dnsConfig.searches must not have more than 32 search paths"],
        );
        // 2048 characters are as many as there may be: 32 of 63 with 31 blanks, and one more.
        let full = || vec![format!("{}.{}", "a".repeat(40), "b".repeat(22)); 31];
        let with_last =
            |length: usize| full().into_iter().chain([format!("{}c", "c.".repeat(length / 2))]).collect();
        check(config(1, with_last(62), &[]), &[]);
        check(
            config(1, with_last(66), &[]),
            &[
                "spec.dnsConfig.searches must not have more than 2048 characters (including spaces) in the search list",
            ],
        );
        check(
            config(1, text("Bad_"), &[("", ""), ("a b", "c\nd")]),
            &[
                "spec.dnsConfig.searches[0] \"Bad_\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric \
                 characters, '-' or '.', and must start and end with an alphanumeric character",
                "spec.dnsConfig.options[0].name must not be empty",
                "spec.dnsConfig.options[1].name must have at most 63 printable ASCII characters without spaces",
                "spec.dnsConfig.options[1].value must have at most 63 printable ASCII characters without spaces",
            ],
        );
        let alias = |name: &str| HostAlias {
            ip: "fd00::1".parse().expect("an address"),
            hostnames: vec![SmolStr::new(name)],
        };
        check(
            PodNaming {
                host_aliases: vec![alias("a.example"), alias("a\tb")],
                subdomain: Some("front".into()),
                ..PodNaming::default()
            },
            &[
                "spec.hostAliases[1].hostnames[0] \"a\\tb\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric \
                 characters, '-' or '.', and must start and end with an alphanumeric character",
            ],
        );
    }
}
