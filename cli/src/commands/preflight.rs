//! `preflight`: what this machine has for guests, and what it lacks, each with its remedy.

mod gpu;

use std::path::PathBuf;

use anyhow::Context as _;
use bulkhead_nodeagent::hardware::{
    CLASSES_MAX, Inventory, Need, Outcome, PciFunction, Precondition, Sriov, device_class_of, discover,
    preconditions,
};
use bulkhead_nodeagent::{MachineTree, ThinPoolName, thin_pool_precondition};
use bulkhead_types::{DEVICE_CLASSES_JSON, NamedDeviceClass};
use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::failure::Failure;
use crate::output::{emit, emit_line, table};

/// How it is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Tables.
    #[default]
    Table,
    /// Everything that was found.
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct PreflightArgs {
    /// DeviceClasses, as a JSON file of names and specs, instead of those that come with the program
    #[arg(long, value_name = "FILE")]
    device_classes: Option<PathBuf>,
    /// Read the files of this folder as the machine's: a copy of another machine's /sys, /proc/cmdline and /dev
    #[arg(long, default_value = "/", value_name = "DIR")]
    root: PathBuf,
    /// Look for this thin pool of LVM, too, of which an agent is to make volumes (`agent --volume-group`)
    #[arg(long, value_parser = |text: &str| text.parse::<ThinPoolName>(), value_name = "VG/THINPOOL")]
    volume_group: Option<ThinPoolName>,
    /// How it is shown
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    /// Show all PCI functions, also those that pods cannot have
    #[arg(long)]
    all: bool,
    /// Check NVIDIA's cards of this machine as far as it can be done here, tell each precondition, and say what could not be done (codes: 1 failed,
    /// 3 no card, 4 not all done)
    #[arg(long, conflicts_with = "all")]
    gpu: bool,
}

#[derive(Serialize)]
struct Report<'a> {
    preconditions: &'a [Precondition],
    inventory: &'a Inventory,
}

/// # Errors
/// When a kind of devices cannot be read, or something is missing for devices that the machine has.
pub(crate) fn run(args: &PreflightArgs) -> Result<(), Failure> {
    let classes = classes(args)?;
    let tree = MachineTree::new(&args.root);
    let inventory = discover(&tree);
    let mut found = preconditions(&tree, &inventory, &classes);
    found.extend(args.volume_group.as_ref().map(thin_pool_precondition));
    if args.gpu {
        return gpu::run(&gpu::check(&args.root, &inventory, &found), args.output);
    }
    match args.output {
        Format::Json => {
            let report = Report { preconditions: &found, inventory: &inventory };
            emit_line(&serde_json::to_string_pretty(&report).map_err(anyhow::Error::from)?)?;
        }
        Format::Table => {
            let rows: Vec<_> = found.iter().map(row).collect();
            emit(&table::render(&["PRECONDITION", "NEEDED FOR", "STATE", "FOUND"], &rows))?;
            for one in found.iter().filter(|one| !one.remedy.is_empty()) {
                emit_line(&format!("{}: {}", one.name, one.remedy))?;
            }
            show_functions(args, &classes, &inventory)?;
        }
    }
    let lacks: Vec<_> = found.iter().filter(|one| is_fatal(one)).map(|one| one.name).collect();
    if lacks.is_empty() {
        return Ok(());
    }
    Err(Failure::failed(format!("this machine lacks {}", lacks.join(", "))))
}

/// Guests run without the rest, only slower, and held by fewer limits.
fn is_fatal(one: &Precondition) -> bool {
    one.outcome == Outcome::Missing
        && matches!(one.need, Need::Devices | Need::VirtualFunctions | Need::Volumes)
}

fn classes(args: &PreflightArgs) -> Result<Vec<NamedDeviceClass>, Failure> {
    let text = match &args.device_classes {
        Some(path) => std::fs::read_to_string(path).with_context(|| path.display().to_string())?,
        None => DEVICE_CLASSES_JSON.to_owned(),
    };
    let name =
        args.device_classes.as_ref().map_or("device_classes".to_owned(), |path| path.display().to_string());
    let classes: Vec<NamedDeviceClass> =
        serde_json::from_str(&text).map_err(|error| Failure::usage(format!("{name}: {error}")))?;
    if classes.len() > CLASSES_MAX {
        return Err(Failure::usage(format!(
            "{name}: {} classes: at most {CLASSES_MAX} are allowed",
            classes.len()
        )));
    }
    Ok(classes)
}

fn row(one: &Precondition) -> Vec<String> {
    let (need, state) = (one.need.as_str(), one.outcome.as_str());
    vec![one.name.to_owned(), need.to_owned(), state.to_owned(), one.found.clone()]
}

fn show_functions(
    args: &PreflightArgs,
    classes: &[NamedDeviceClass],
    inventory: &Inventory,
) -> Result<(), Failure> {
    let rows: Vec<_> = inventory
        .functions
        .values()
        .filter_map(|function| {
            let class = device_class_of(classes, function);
            (args.all || class.is_some()).then(|| function_row(function, class))
        })
        .collect();
    emit_line("")?;
    if rows.is_empty() {
        emit_line("No device that pods could have.")?;
    } else {
        let header = ["ADDRESS", "RESOURCE", "ID", "CLASS", "DRIVER", "NUMA", "GROUP", "RESET", "SR-IOV"];
        emit(&table::render(&header, &rows))?;
    }
    for problem in &inventory.problems {
        emit_line(&format!("{} cannot be read: {}", problem.name, problem.reason))?;
    }
    Ok(())
}

fn function_row(function: &PciFunction, class: Option<&NamedDeviceClass>) -> Vec<String> {
    let or_dash =
        |text: Option<String>| text.filter(|text| !text.is_empty()).unwrap_or_else(|| "-".to_owned());
    let sriov = match &function.sriov {
        Sriov::None => None,
        Sriov::Physical { vfs_max, vfs, .. } => Some(format!("{} of {vfs_max}", vfs.len())),
        Sriov::Virtual { physical, .. } => Some(format!("of {physical}")),
    };
    vec![
        function.address.to_string(),
        or_dash(class.map(|class| class.spec.extended_resource_name.to_string())),
        format!("{:04x}:{:04x}", function.vendor, function.device),
        format!("{:04x}", function.class_of()),
        or_dash(function.driver.clone()),
        or_dash(function.numa_node.map(|node| node.to_string())),
        or_dash(function.iommu_group.map(|group| group.to_string())),
        or_dash(Some(function.reset_methods.join(","))),
        or_dash(sriov),
    ]
}
