//! Compiles the `.proto` files to Rust, without protoc: `protox` reads them, `tonic-prost-build` writes the
//! code, and the descriptor set goes along for server reflection.

use std::path::{Path, PathBuf};

use prost::Message as _;

const FILES: [&str; 10] = [
    "bulkhead/v1/agents.proto",
    "bulkhead/v1/cluster.proto",
    "bulkhead/v1/commands.proto",
    "bulkhead/v1/common.proto",
    "bulkhead/v1/log.proto",
    "bulkhead/v1/manifests.proto",
    "bulkhead/v1/peers.proto",
    "bulkhead/v1/podio.proto",
    "bulkhead/v1/queries.proto",
    "bulkhead/v1/resources.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let include = Path::new("proto");
    println!("cargo:rerun-if-changed=build.rs");
    for file in FILES {
        println!("cargo:rerun-if-changed={}", include.join(file).display());
    }
    let descriptors = protox::compile(FILES, [include])?;
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    std::fs::write(out.join("bulkhead.v1.descriptors.bin"), descriptors.encode_to_vec())?;
    let has_services = std::env::var_os("CARGO_FEATURE_SERVICES").is_some();
    tonic_prost_build::configure()
        .build_client(has_services)
        .build_server(has_services)
        // Maps in key order: the log's bytes are canonical.
        .btree_map(".")
        // Opaque payloads are shared, not copied.
        .bytes(".")
        // Their values are never printed (see `convert/config.rs`, `convert/resolved.rs` and `convert/pull_secrets.rs`).
        .skip_debug([
            "bulkhead.v1.Secret",
            "bulkhead.v1.ResolvedContainer",
            "bulkhead.v1.EnvValue",
            "bulkhead.v1.VolumeFile",
            "bulkhead.v1.RegistryCredential",
        ])
        // No `Client::connect`: it would collide with `Agents.Connect`. Callers build their channel themselves.
        .build_transport(false)
        .emit_rerun_if_changed(false)
        .compile_fds(descriptors)?;
    Ok(())
}
