//! `get`: objects as tables, YAML, JSON or names; with `-w`, as they change.

use bulkhead_types::{Kind, Object, Revision};
use clap::Args;
use serde_json::{Value, json};

use super::Context;
use crate::client::{Filter, Watcher};
use crate::directory::Directory;
use crate::failure::{Class, Failure};
use crate::output::row::{self, Columns};
use crate::output::{Format, emit, emit_line, table};
use crate::target::{self, Target, object_ref, slash_name};

#[derive(Debug, Args)]
pub(crate) struct GetArgs {
    /// KIND [NAME...], KIND,KIND or KIND/NAME...
    #[arg(required = true, value_name = "KIND [NAME]")]
    what: Vec<String>,
    /// Of all namespaces
    #[arg(long, short = 'A')]
    all_namespaces: bool,
    /// Only with these labels, such as app=web,tier!=db,env in (a,b)
    #[arg(long, short = 'l', value_name = "LABELS")]
    selector: Option<String>,
    /// Only with these fields, such as status.phase=Running,spec.nodeName=n1
    #[arg(long, value_name = "FIELDS")]
    field_selector: Option<String>,
    /// How to print
    #[arg(long, short, value_enum, default_value_t)]
    output: Format,
    /// Go on with what changes, until Ctrl-C
    #[arg(long, short)]
    watch: bool,
    /// Show labels too
    #[arg(long)]
    show_labels: bool,
    /// Show who manages which fields too (with -o yaml and -o json)
    #[arg(long)]
    show_managed_fields: bool,
    /// No header
    #[arg(long)]
    no_headers: bool,
}

/// The objects of one kind, and the revision they were read at.
struct Group {
    kind: Kind,
    filter: Filter,
    objects: Vec<Object>,
    revision: Revision,
}

pub(crate) async fn run(args: GetArgs, context: &Context) -> Result<(), Failure> {
    // Devices are no objects: each row is a part of a node's ResourceSlice with who holds it.
    if let Some(("devices" | "device", nodes)) =
        args.what.split_first().map(|(kind, names)| (kind.as_str(), names))
    {
        return match args.output {
            Format::Json | Format::Yaml => {
                emit(&text_of(&super::device::values(nodes, context).await?, args.output))
            }
            Format::Table | Format::Wide => super::device::list(nodes, context).await,
            Format::Name => Err(Failure::usage("devices are no objects: -o name has nothing to say of them")),
        };
    }
    let targets = target::parse(&args.what)?;
    let is_named = targets.iter().any(|t| t.name.is_some());
    if is_named && (args.selector.is_some() || args.field_selector.is_some() || args.all_namespaces) {
        return Err(Failure::usage("names cannot be combined with selectors or --all-namespaces"));
    }
    if args.watch && targets.len() != 1 {
        return Err(Failure::usage("--watch is for one kind, or one object"));
    }
    let groups = read(&args, &targets, context).await?;
    match args.output {
        Format::Table | Format::Wide => print_tables(&args, groups, is_named, context).await,
        _ => print_values(&args, groups, is_named, context).await,
    }
}

async fn read(args: &GetArgs, targets: &[Target], context: &Context) -> Result<Vec<Group>, Failure> {
    let mut groups: Vec<Group> = Vec::new();
    for Target { kind, name } in targets {
        let filter = Filter {
            namespace: (!args.all_namespaces).then(|| context.namespace.clone()),
            labels: args.selector.clone().unwrap_or_default(),
            fields: match name {
                Some(name) => format!("metadata.name={name}"),
                None => args.field_selector.clone().unwrap_or_default(),
            },
        };
        let (objects, revision) = match name {
            // A watch goes on from a list's revision; otherwise a plain read says NOT_FOUND by itself.
            Some(name) if !args.watch => {
                (vec![context.client.get(&object_ref(*kind, &context.namespace, name.clone())).await?], 0)
            }
            _ => context.client.list(*kind, &filter).await?,
        };
        match groups.last_mut() {
            Some(group) if group.kind == *kind && name.is_some() => group.objects.extend(objects),
            _ => groups.push(Group { kind: *kind, filter, objects, revision }),
        }
    }
    Ok(groups)
}

async fn print_tables(
    args: &GetArgs,
    groups: Vec<Group>,
    is_named: bool,
    context: &Context,
) -> Result<(), Failure> {
    let many = groups.len() > 1;
    let columns = Columns {
        namespace: args.all_namespaces,
        wide: args.output == Format::Wide,
        kind: many,
        labels: args.show_labels,
    };
    let mut first = true;
    for group in groups {
        let directory = Directory::of_nodes(&context.client, &group.objects).await?;
        let header = row::header(group.kind, columns);
        let rows: Vec<_> = group.objects.iter().map(|o| row::row(o, columns, &directory)).collect();
        if rows.is_empty() && !args.watch {
            if !many {
                eprintln!("{}", nothing(&group, args));
            }
            continue;
        }
        if !first {
            emit("\n")?;
        }
        first = false;
        let text = table::render(&header, &rows);
        let text = if args.no_headers { text.split_once('\n').map_or("", |(_, rest)| rest) } else { &text };
        emit(text)?;
        if args.watch {
            let widths = table::widths(&header, &rows);
            let watcher = context.client.watch(group.kind, &group.filter, &group.objects, group.revision);
            return follow_table(watcher, directory, columns, &widths, context).await;
        }
    }
    if first && many && !is_named {
        eprintln!("No resources found");
    }
    Ok(())
}

fn nothing(group: &Group, args: &GetArgs) -> String {
    match &group.filter.namespace {
        Some(namespace) if group.kind.is_namespaced() && !args.all_namespaces => {
            format!("No {}s found in namespace {namespace}", group.kind.as_str().to_lowercase())
        }
        _ => format!("No {}s found", group.kind.as_str().to_lowercase()),
    }
}

async fn follow_table(
    mut watcher: Watcher<'_>,
    mut directory: Directory,
    columns: Columns,
    widths: &[usize],
    context: &Context,
) -> Result<(), Failure> {
    loop {
        let (_, object, _) = watcher.next().await?;
        if directory.lacks_node_of(&object) {
            directory = Directory::of_nodes(&context.client, std::slice::from_ref(&object)).await?;
        }
        emit(&table::render_row(&row::row(&object, columns, &directory), widths))?;
    }
}

async fn print_values(
    args: &GetArgs,
    groups: Vec<Group>,
    is_named: bool,
    context: &Context,
) -> Result<(), Failure> {
    let objects: Vec<&Object> = groups.iter().flat_map(|g| &g.objects).collect();
    if args.output == Format::Name {
        for object in &objects {
            emit_line(&slash_name(&object.object_ref()))?;
        }
    } else if !args.watch {
        let all: Vec<Object> = objects.iter().map(|&o| o.clone()).collect();
        let directory = Directory::complete(&context.client, &all).await?;
        let mut items: Vec<Value> =
            all.iter().map(|o| directory.to_value(o, args.show_managed_fields)).collect();
        let value = if is_named && items.len() == 1 {
            items.remove(0)
        } else {
            json!({"apiVersion": "v1", "kind": "List", "items": items})
        };
        return emit(&text_of(&value, args.output));
    }
    if !args.watch {
        return Ok(());
    }
    let Some(group) = groups.first() else { return Ok(()) };
    if args.output != Format::Name {
        for object in &group.objects {
            print_one(object, args, context).await?;
        }
    }
    let mut watcher = context.client.watch(group.kind, &group.filter, &group.objects, group.revision);
    loop {
        let (_, object, _) = watcher.next().await?;
        match args.output {
            Format::Name => emit_line(&slash_name(&object.object_ref()))?,
            _ => print_one(&object, args, context).await?,
        }
    }
}

async fn print_one(object: &Object, args: &GetArgs, context: &Context) -> Result<(), Failure> {
    let format = args.output;
    let directory = Directory::complete(&context.client, std::slice::from_ref(object)).await?;
    let text = text_of(&directory.to_value(object, args.show_managed_fields), format);
    emit(&if format == Format::Yaml { format!("---\n{text}") } else { text })
}

fn text_of(value: &Value, format: Format) -> String {
    match format {
        Format::Yaml => bulkhead_manifest::value_to_yaml(value),
        _ => format!("{value:#}\n"),
    }
}

/// The failure of a command that needs an object which is not there.
pub(crate) fn not_found(what: &str) -> Failure {
    Failure::new(Class::NotFound, format!("{what} not found"))
}
