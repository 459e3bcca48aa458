//! `image`: images of this machine.

use std::path::PathBuf;

use bulkhead_nodeagent::import_image;
use bulkhead_types::check_image_reference;
use clap::Subcommand;

use crate::failure::Failure;
use crate::output::emit_line;
use crate::progress::Progress;

#[derive(Debug, Subcommand)]
pub(crate) enum ImageVerb {
    /// Put an OCI image into the store of an agent of this machine, whether that agent runs or not
    Import {
        /// An OCI layout: a directory, or a tar archive of one
        layout: PathBuf,
        /// Which image of the layout; may be left out when it holds one
        #[arg(long)]
        tag: Option<String>,
        /// What pods call it, such as web:v1
        #[arg(long)]
        name: String,
        /// The agent's data directory
        #[arg(long, env = "BULKHEAD_AGENT_DATA_DIR", value_name = "DIR")]
        data_dir: PathBuf,
    },
}

pub(crate) async fn run(verb: ImageVerb) -> Result<(), Failure> {
    let ImageVerb::Import { layout, tag, name, data_dir } = verb;
    check_image_reference(&name).map_err(|e| Failure::usage(e.to_string()))?;
    let _progress = Progress::start(format!("importing {}", layout.display()));
    let imported = import_image(&data_dir, &layout, tag.as_deref(), &name).await;
    let digest = imported.map_err(anyhow::Error::from)?;
    emit_line(&format!("{name} imported as {}", digest.as_str()))
}
