//! What quotas count: Kubernetes' resource names, and amounts by them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use crate::{
    BuiltinClass, HugePageSize, Kind, QuantityError, format_bytes, format_millis, is_extended_resource_name,
    parse_millis, parse_units,
};

/// One thing that is counted. Pods that ended count for nothing but [`Measure::Count`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Measure {
    /// Processor time that pods request, in thousandths of a core.
    RequestsCpu,
    /// Memory that pods request, in bytes, the overhead of their guests included.
    RequestsMemory,
    /// Writable disk that pods request, in bytes.
    RequestsEphemeralStorage,
    /// Processor time that pods may use, in thousandths of a core.
    LimitsCpu,
    /// Memory that pods may use, in bytes, the overhead of their guests included.
    LimitsMemory,
    /// Writable disk that pods may use, in bytes.
    LimitsEphemeralStorage,
    /// What PersistentVolumeClaims ask for, in bytes.
    RequestsStorage,
    /// How many PersistentVolumeClaims there are.
    Claims,
    /// How many pods have not ended.
    Pods,
    /// What the claims of a class ask for, in bytes.
    ClassStorage(BuiltinClass),
    /// How many claims of a class there are.
    ClassClaims(BuiltinClass),
    /// How many objects of a namespaced kind there are.
    Count(Kind),
    /// What pods ask for of an extended resource, as `nvidia.com/gpu`. Of shared devices memory and compute are counted for
    /// each card: what a container asks of one card times the number of its cards.
    Extended(SmolStr),
    /// What the claims of a StorageClass ask for, or how many there are, by the whole name of that:
    /// `gold.storageclass.storage.k8s.io/requests.storage`. Since [`crate::STORAGE_CLASS_LEVEL`].
    Named(SmolStr),
}

/// Measures that are neither by class nor by kind.
const PLAIN: [Measure; 9] = [
    Measure::RequestsCpu,
    Measure::RequestsMemory,
    Measure::RequestsEphemeralStorage,
    Measure::LimitsCpu,
    Measure::LimitsMemory,
    Measure::LimitsEphemeralStorage,
    Measure::RequestsStorage,
    Measure::Claims,
    Measure::Pods,
];
/// What the names of extended resources have before them (Kubernetes' rule).
const EXTENDED_PREFIX: &str = "requests.";
const CLASS_SUFFIX: &str = ".storageclass.storage.k8s.io/";
const CLASS_STORAGE: &str = "requests.storage";
const CLASS_CLAIMS: &str = "persistentvolumeclaims";

impl Measure {
    /// How many measures there are that are not by the name of an extended resource or of a StorageClass.
    pub const LEN: usize = PLAIN.len() + 2 * BuiltinClass::ALL.len() + Kind::ALL.len();

    /// A number below [`Self::LEN`], for tables; `None` of an extended resource and of a StorageClass.
    #[must_use]
    pub fn index(&self) -> Option<usize> {
        let (plain, classes) = (PLAIN.len(), BuiltinClass::ALL.len());
        let class_index = |class| BuiltinClass::ALL.iter().position(|one| one == class).unwrap_or(0);
        match self {
            Self::ClassStorage(class) => Some(plain + class_index(class)),
            Self::ClassClaims(class) => Some(plain + classes + class_index(class)),
            Self::Count(kind) => {
                Kind::ALL.iter().position(|one| one == kind).map(|at| plain + 2 * classes + at)
            }
            Self::Extended(_) | Self::Named(_) => None,
            other => PLAIN.iter().position(|one| one == other),
        }
    }

    /// Huge pages of a size, by the name of their resource, in bytes: the pages that the guests' overhead takes included.
    #[must_use]
    pub fn of_huge_pages(size: HugePageSize) -> Self {
        Self::Extended(SmolStr::new_static(size.resource()))
    }

    /// What the claims of a StorageClass ask for, in bytes.
    #[must_use]
    pub fn class_storage(class: &str) -> Self {
        Self::Named(format!("{class}{CLASS_SUFFIX}{CLASS_STORAGE}").into())
    }

    /// How many claims of a StorageClass there are.
    #[must_use]
    pub fn class_claims(class: &str) -> Self {
        Self::Named(format!("{class}{CLASS_SUFFIX}{CLASS_CLAIMS}").into())
    }

    /// Reads the name of a measure of a StorageClass.
    fn of_class(text: &str) -> Option<Self> {
        let (class, what) = text.split_once(CLASS_SUFFIX)?;
        let is_known = [CLASS_STORAGE, CLASS_CLAIMS].contains(&what) && crate::Name::new(class).is_ok();
        is_known.then(|| Self::Named(text.into()))
    }

    /// Whether it is of an extended resource.
    #[must_use]
    pub fn is_extended(&self) -> bool {
        matches!(self, Self::Extended(_))
    }

    /// Every measure that is not by the name of an extended resource or of a StorageClass.
    pub fn all() -> impl Iterator<Item = Self> {
        let classes = BuiltinClass::ALL.into_iter();
        let classes = classes.flat_map(|class| [Self::ClassStorage(class), Self::ClassClaims(class)]);
        // ControllerRevisions are their owners' own: nobody makes more of them than there are templates.
        // Kinds that came after quotas are not counted, but for snapshots, of which quotas have a level of their own: a quota
        // that named them could not be read below it.
        let is_counted = |kind: &Kind| {
            let is_later = matches!(
                kind,
                Kind::SriovNetworkNodePolicy
                    | Kind::SriovNetwork
                    | Kind::SriovIBNetwork
                    | Kind::ElasticQuotaTree
            );
            kind.is_namespaced() && *kind != Kind::ControllerRevision && !is_later
        };
        let kinds = Kind::ALL.into_iter().filter(is_counted).map(Self::Count);
        PLAIN.into_iter().chain(classes).chain(kinds)
    }

    /// The name in quotas.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Extended(resource) => format!("{EXTENDED_PREFIX}{resource}"),
            Self::RequestsCpu => "requests.cpu".to_owned(),
            Self::RequestsMemory => "requests.memory".to_owned(),
            Self::RequestsEphemeralStorage => "requests.ephemeral-storage".to_owned(),
            Self::LimitsCpu => "limits.cpu".to_owned(),
            Self::LimitsMemory => "limits.memory".to_owned(),
            Self::LimitsEphemeralStorage => "limits.ephemeral-storage".to_owned(),
            Self::RequestsStorage => "requests.storage".to_owned(),
            Self::Claims => "persistentvolumeclaims".to_owned(),
            Self::Pods => "pods".to_owned(),
            Self::ClassStorage(class) => format!("{}{CLASS_SUFFIX}{CLASS_STORAGE}", class.as_str()),
            Self::ClassClaims(class) => format!("{}{CLASS_SUFFIX}{CLASS_CLAIMS}", class.as_str()),
            Self::Count(kind) => format!("count/{}", plural_and_group(*kind)),
            Self::Named(name) => name.to_string(),
        }
    }

    /// The short name that Kubernetes knows it by as well.
    fn short(&self) -> Option<&'static str> {
        match self {
            Self::RequestsCpu => Some("cpu"),
            Self::RequestsMemory => Some("memory"),
            Self::RequestsEphemeralStorage => Some("ephemeral-storage"),
            Self::Extended(name) => HugePageSize::of_resource(name).map(HugePageSize::resource),
            Self::Count(Kind::ConfigMap) => Some("configmaps"),
            Self::Count(Kind::Secret) => Some("secrets"),
            Self::Count(Kind::ResourceQuota) => Some("resourcequotas"),
            _ => None,
        }
    }

    /// Reads an amount: thousandths of a core, bytes, or a number.
    ///
    /// # Errors
    /// When the text is no quantity, negative, or 2^63 and above.
    pub fn parse_amount(&self, text: &str) -> Result<u64, QuantityError> {
        match self {
            Self::RequestsCpu | Self::LimitsCpu => parse_millis(text),
            _ => parse_units(text),
        }
    }

    /// Prints an amount as Kubernetes would.
    #[must_use]
    pub fn format_amount(&self, amount: u64) -> String {
        match self {
            Self::RequestsCpu | Self::LimitsCpu => format_millis(amount),
            Self::Extended(name) if HugePageSize::of_resource(name).is_some() => format_bytes(amount),
            Self::Claims | Self::Pods | Self::ClassClaims(_) | Self::Count(_) | Self::Extended(_) => {
                amount.to_string()
            }
            Self::Named(name) if name.ends_with(CLASS_CLAIMS) => amount.to_string(),
            _ => format_bytes(amount),
        }
    }
}

/// `deployments.apps`; a kind without a group is its plural.
fn plural_and_group(kind: Kind) -> String {
    // True of every namespaced kind.
    let plural = format!("{}s", kind.as_str().to_ascii_lowercase());
    match kind.api_version().split_once('/') {
        Some((group, _)) => format!("{plural}.{group}"),
        None => plural,
    }
}

/// A resource as a quota names it. Short names mean the same as long ones and stay as they are written; when both are
/// given both hold, as in Kubernetes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "SmolStr", into = "SmolStr")]
pub struct QuotaResource {
    measure: Measure,
    is_short: bool,
}

/// A name is none of a resource that quotas count.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not counted by quotas; there are {known}", known = known_names())]
pub struct UnknownQuotaResource(String);

fn known_names() -> String {
    let short = "cpu, memory, ephemeral-storage, configmaps, secrets, resourcequotas";
    let plain: Vec<String> = PLAIN.iter().map(Measure::name).collect();
    format!(
        "{short}, {}, CLASS{CLASS_SUFFIX}requests.storage, CLASS{CLASS_SUFFIX}persistentvolumeclaims \
         (classes local and local-retain, and StorageClasses), count/PLURAL.GROUP of namespaced kinds, such as count/deployments.apps, \
         hugepages-2Mi, hugepages-1Gi, and requests.RESOURCE of devices, such as requests.nvidia.com/gpu",
        plain.join(", ")
    )
}

impl QuotaResource {
    /// Reads a name.
    ///
    /// # Errors
    /// When nothing of that name is counted.
    pub fn parse(text: &str) -> Result<Self, UnknownQuotaResource> {
        let find = |is_short: bool| {
            Measure::all()
                .find(|measure| match is_short {
                    true => measure.short() == Some(text),
                    false => measure.name() == text,
                })
                .map(|measure| Self { measure, is_short })
        };
        let extended = || {
            let name = text.strip_prefix(EXTENDED_PREFIX)?;
            let measure = is_extended_resource_name(name).then(|| Measure::Extended(name.into()))?;
            Some(Self { measure, is_short: false })
        };
        let huge_pages = || {
            let (name, is_short) =
                text.strip_prefix(EXTENDED_PREFIX).map_or((text, true), |name| (name, false));
            let size = HugePageSize::of_resource(name)?;
            Some(Self { measure: Measure::of_huge_pages(size), is_short })
        };
        find(true)
            .or_else(|| find(false))
            .or_else(huge_pages)
            .or_else(extended)
            .or_else(|| Measure::of_class(text).map(|measure| Self { measure, is_short: false }))
            .ok_or_else(|| UnknownQuotaResource(text.chars().take(80).collect()))
    }

    /// What it counts.
    #[must_use]
    pub fn measure(&self) -> &Measure {
        &self.measure
    }

    /// Its name, as it was written.
    #[must_use]
    pub fn name(&self) -> String {
        let short = self.measure.short().filter(|_| self.is_short);
        short.map_or_else(|| self.measure.name(), ToOwned::to_owned)
    }
}

impl From<Measure> for QuotaResource {
    fn from(measure: Measure) -> Self {
        Self { measure, is_short: false }
    }
}

impl std::fmt::Display for QuotaResource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name())
    }
}

impl TryFrom<SmolStr> for QuotaResource {
    type Error = UnknownQuotaResource;
    fn try_from(text: SmolStr) -> Result<Self, UnknownQuotaResource> {
        Self::parse(&text)
    }
}

impl From<QuotaResource> for SmolStr {
    fn from(resource: QuotaResource) -> Self {
        resource.name().into()
    }
}

/// Amounts by resource: thousandths of a core, bytes, or numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct QuotaAmounts(BTreeMap<QuotaResource, u64>);

impl QuotaAmounts {
    /// How many resources are named.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Sets an amount; returns what it was.
    pub fn insert(&mut self, resource: QuotaResource, amount: u64) -> Option<u64> {
        self.0.insert(resource, amount)
    }

    /// The amount of a resource of exactly this name.
    #[must_use]
    pub fn get(&self, resource: &QuotaResource) -> Option<u64> {
        self.0.get(resource).copied()
    }

    /// All of them, in one order.
    pub fn iter(&self) -> impl Iterator<Item = (&QuotaResource, u64)> + '_ {
        self.0.iter().map(|(resource, amount)| (resource, *amount))
    }

    /// The lowest amount of what a measure counts, however it is named.
    #[must_use]
    pub fn of(&self, measure: &Measure) -> Option<u64> {
        let named =
            [false, true].map(|is_short| self.get(&QuotaResource { measure: measure.clone(), is_short }));
        named.into_iter().flatten().min()
    }

    /// The measures that are named, each once, in order.
    pub fn measures(&self) -> impl Iterator<Item = &Measure> + '_ {
        let mut last = None;
        self.0
            .keys()
            .map(|resource| &resource.measure)
            .filter(move |measure| last.replace(*measure) != Some(*measure))
    }
}

impl FromIterator<(QuotaResource, u64)> for QuotaAmounts {
    fn from_iter<I: IntoIterator<Item = (QuotaResource, u64)>>(amounts: I) -> Self {
        Self(amounts.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_read_as_what_it_says() {
        let mut seen = std::collections::BTreeSet::new();
        for measure in Measure::all() {
            let index = measure.index().expect("a place in tables");
            assert!(index < Measure::LEN && seen.insert(index), "{measure:?}");
            assert_eq!(
                QuotaResource::parse(&measure.name()),
                Ok(measure.clone().into()),
                "{}",
                measure.name()
            );
        }
    }

    #[track_caller]
    fn check(name: &str, measure: Option<Measure>) {
        let found = QuotaResource::parse(name).ok();
        assert_eq!(found.as_ref().map(QuotaResource::measure), measure.as_ref(), "{name}");
        assert!(found.is_none_or(|resource| resource.name() == name), "{name} is printed as it was written");
    }

    #[test]
    fn names_are_those_of_kubernetes() {
        check("cpu", Some(Measure::RequestsCpu));
        check("requests.cpu", Some(Measure::RequestsCpu));
        check("limits.memory", Some(Measure::LimitsMemory));
        check("configmaps", Some(Measure::Count(Kind::ConfigMap)));
        check("count/configmaps", Some(Measure::Count(Kind::ConfigMap)));
        check("count/deployments.apps", Some(Measure::Count(Kind::Deployment)));
        let snapshots = Measure::Count(Kind::VolumeSnapshot);
        check("count/volumesnapshots.snapshot.storage.k8s.io", Some(snapshots));
        check("count/cronjobs.batch", Some(Measure::Count(Kind::CronJob)));
        let class = Measure::ClassStorage(BuiltinClass::LocalRetain);
        check("local-retain.storageclass.storage.k8s.io/requests.storage", Some(class));
        check("gold.storageclass.storage.k8s.io/requests.storage", Some(Measure::class_storage("gold")));
        check("gold.storageclass.storage.k8s.io/persistentvolumeclaims", Some(Measure::class_claims("gold")));
        check("Gold.storageclass.storage.k8s.io/persistentvolumeclaims", None);
        check("gold.storageclass.storage.k8s.io/pods", None);
        check("requests.nvidia.com/gpu", Some(Measure::Extended("nvidia.com/gpu".into())));
        check("hugepages-2Mi", Some(Measure::of_huge_pages(HugePageSize::TwoMib)));
        check("requests.hugepages-1Gi", Some(Measure::of_huge_pages(HugePageSize::OneGib)));
        assert_eq!(Measure::of_huge_pages(HugePageSize::TwoMib).format_amount(4 << 20), "4Mi");
        for unknown in [
            "limits.hugepages-2Mi",
            "hugepages-4Mi",
            "nvidia.com/gpu",
            "limits.nvidia.com/gpu",
            "requests.kubernetes.io/gpu",
            "",
            "requests.gpu",
            "services",
            "count/nodes",
            "count/deployments",
            "Pods",
        ] {
            check(unknown, None);
        }
    }

    #[test]
    fn the_lowest_of_two_names_of_one_thing_counts() {
        let named = |text| QuotaResource::parse(text).expect("a name");
        let amounts: QuotaAmounts =
            [(named("cpu"), 2000), (named("requests.cpu"), 1000), (named("pods"), 3)].into_iter().collect();
        assert_eq!(amounts.of(&Measure::RequestsCpu), Some(1000));
        assert_eq!(amounts.of(&Measure::LimitsCpu), None);
        assert_eq!(amounts.measures().collect::<Vec<_>>(), [&Measure::RequestsCpu, &Measure::Pods]);
    }
}
