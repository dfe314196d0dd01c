//! Compiles `proto/` without an installed `protoc`, and writes the table of the
//! scope that each rpc needs. An rpc that states no scope does not build.

use std::{env, fmt::Write, fs, path::PathBuf};

use prost_reflect::{DescriptorPool, Value};

const FILES: [&str; 6] = [
    "sluice/common/v1/access.proto",
    "sluice/ingest/v1/ingest.proto",
    "sluice/ingest/v1/definitions.proto",
    "sluice/results/v1/results.proto",
    "sluice/results/v1/intake.proto",
    "sluice/results/v1/storage_configs.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    println!("cargo:rerun-if-changed={}", root.display());
    let out = PathBuf::from(env::var("OUT_DIR")?);

    let mut compiler = protox::Compiler::new([&root])?;
    compiler.include_imports(true).include_source_info(true);
    compiler.open_files(FILES)?;
    fs::write(out.join("descriptors.bin"), compiler.encode_file_descriptor_set())?;
    fs::write(out.join("scopes.rs"), scopes(&compiler.descriptor_pool())?)?;

    tonic_prost_build::configure()
        .bytes(".")
        .extern_path(".google.protobuf.Struct", "crate::LazyStruct")
        .compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}

/// The source of `&[("/package.Service/Method", "scope"), …]`, sorted by path.
fn scopes(pool: &DescriptorPool) -> Result<String, Box<dyn std::error::Error>> {
    let option = pool
        .get_extension_by_name("sluice.common.v1.required_scope")
        .ok_or("the option sluice.common.v1.required_scope is not declared")?;
    let mut rows = Vec::new();
    for service in pool.services().filter(|s| s.full_name().starts_with("sluice.")) {
        for method in service.methods() {
            let path = format!("/{}/{}", service.full_name(), method.name());
            match method.options().get_extension(&option).as_ref() {
                Value::String(scope) if !scope.is_empty() => rows.push((path, scope.clone())),
                _ => return Err(format!("{path} states no required_scope").into()),
            }
        }
    }
    rows.sort();
    let mut source = String::from("&[\n");
    for (path, scope) in rows {
        writeln!(source, "    ({path:?}, {scope:?}),")?;
    }
    source.push_str("]\n");
    Ok(source)
}
