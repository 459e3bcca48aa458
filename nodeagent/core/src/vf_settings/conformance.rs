//! What every [`VfLinks`] does, the kernel's and one in memory.

use bulkhead_types::VfLinkState;

use super::{ENODEV, EOPNOTSUPP, VfLinks, VfRate, VfSetting, VfSettings, VfVlan};

/// An interface without virtual functions has none to look at, and refuses to set anything up.
///
/// # Panics
/// When it does otherwise.
pub fn check_link_without_functions(links: &mut dyn VfLinks, interface_index: u32) {
    let looked = links.vf(interface_index, 0).expect_err("it has none");
    assert_eq!(looked.errno, ENODEV, "{looked}");
    let set = links.set_vf(interface_index, 0, &VfSetting::Mac([2, 0, 0, 0, 0, 1]));
    let set = set.expect_err("it has none");
    assert_eq!(set.errno, EOPNOTSUPP, "{set}");
    let gone = links.vf(u32::MAX >> 1, 0).expect_err("no such interface");
    assert_eq!(gone.errno, ENODEV, "{gone}");
}

/// A function of an interface is told each thing by itself, tells it, and leaves all others and the other functions alone.
///
/// # Panics
/// When it does otherwise.
pub fn check_settings(links: &mut dyn VfLinks, interface_index: u32, vf: u32, other: u32) {
    let look = |links: &dyn VfLinks, vf| links.vf(interface_index, vf).expect("it is there");
    let (before, of_other) = (look(links, vf), look(links, other));
    let all = [
        VfSetting::Vlan(VfVlan { id: 100, qos: 3, ..VfVlan::NONE }),
        VfSetting::Mac([2, 0xaa, 0, 0, 0, 7]),
        VfSetting::Rate(VfRate { min_mbps: 100, max_mbps: 1000 }),
        VfSetting::SpoofCheck(before.spoof_check != Some(true)),
        VfSetting::Trust(before.trust != Some(true)),
        VfSetting::LinkState(VfLinkState::Enable),
        VfSetting::LinkState(VfLinkState::Disable),
    ];
    let mut expected = before;
    for setting in &all {
        links.set_vf(interface_index, vf, setting).unwrap_or_else(|error| panic!("{setting:?}: {error}"));
        expected = expected.with(setting);
        assert_eq!(look(links, vf), expected, "{setting:?}");
    }
    for setting in
        before.each().filter(|setting| !matches!(setting, VfSetting::NodeGuid(_) | VfSetting::PortGuid(_)))
    {
        links.set_vf(interface_index, vf, &setting).unwrap_or_else(|error| panic!("{setting:?}: {error}"));
    }
    assert_eq!(look(links, vf), before);
    assert_eq!(look(links, other), of_other);
    assert_ne!(before, VfSettings::default(), "the kernel tells something");
    let gone = links.vf(interface_index, 200).expect_err("no such function");
    assert_eq!(gone.errno, ENODEV, "{gone}");
}
