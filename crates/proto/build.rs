//! Compiles `proto/` without an installed `protoc`, and writes two tables: the rpcs, with
//! the scope that each needs (an rpc that states none does not build), and what the
//! requests are made of, so that they can be measured before they are decoded.

use std::{env, fmt::Write, fs, path::PathBuf};

use prost_reflect::{DescriptorPool, Kind, MessageDescriptor, Value};

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
    for folder in ["sluice", "google"] {
        println!("cargo:rerun-if-changed={}", root.join(folder).display());
    }
    let out = PathBuf::from(env::var("OUT_DIR")?);

    let mut compiler = protox::Compiler::new([&root])?;
    compiler.include_imports(true).include_source_info(true);
    compiler.open_files(FILES)?;
    fs::write(out.join("descriptors.bin"), compiler.encode_file_descriptor_set())?;
    fs::write(out.join("rpcs.rs"), rpcs(&compiler.descriptor_pool())?)?;

    tonic_prost_build::configure()
        .bytes(".")
        .codec_path("crate::codec::SizedCodec")
        .extern_path(".google.protobuf.Struct", "crate::LazyStruct")
        .compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}

/// The source of `(&[Rpc { … }, …], &[MESSAGE, …])`: each rpc, sorted by path, and the
/// messages that are in any request.
fn rpcs(pool: &DescriptorPool) -> Result<String, Box<dyn std::error::Error>> {
    let option = pool
        .get_extension_by_name("sluice.common.v1.required_scope")
        .ok_or("the option sluice.common.v1.required_scope is not declared")?;
    let mut rows = Vec::new();
    let mut messages = Vec::new();
    for service in pool.services().filter(|s| s.full_name().starts_with("sluice.")) {
        for method in service.methods() {
            let path = format!("/{}/{}", service.full_name(), method.name());
            let options = method.options();
            let scope = match options.get_extension(&option).as_ref() {
                Value::String(scope) if !scope.is_empty() => scope.clone(),
                _ => return Err(format!("{path} states no required_scope").into()),
            };
            let (streaming, answered_by_stream) =
                (method.is_client_streaming(), method.is_server_streaming());
            let message = index(&mut messages, &method.input());
            rows.push((path, scope, streaming, answered_by_stream, message));
        }
    }
    rows.sort();
    let mut source = String::from("(&[\n");
    for (path, scope, streaming, answered_by_stream, message) in rows {
        writeln!(
            source,
            "    Rpc {{ path: {path:?}, scope: {scope:?}, streaming: {streaming}, \
             answered_by_stream: {answered_by_stream}, message: {message} }},"
        )?;
    }
    source.push_str("], &[\n");
    let mut at = 0;
    while at < messages.len() {
        let parts = parts(&mut messages, at);
        writeln!(source, "    &[{parts}],")?;
        at += 1;
    }
    source.push_str("])\n");
    Ok(source)
}

/// Where a message stands in the table; at its end if it is new.
fn index(messages: &mut Vec<MessageDescriptor>, message: &MessageDescriptor) -> usize {
    messages.iter().position(|known| known == message).unwrap_or_else(|| {
        messages.push(message.clone());
        messages.len() - 1
    })
}

/// The fields of a message that take more room decoded than encoded.
fn parts(messages: &mut Vec<MessageDescriptor>, at: usize) -> String {
    let mut parts = String::new();
    let message = messages[at].clone();
    for field in message.fields() {
        let part = match field.kind() {
            // Kept encoded until somebody looks into it.
            Kind::Message(inner) if inner.full_name() == "google.protobuf.Struct" => "Part::Struct".into(),
            Kind::Message(inner) => format!("Part::Message({})", index(messages, &inner)),
            _ if field.is_packed() => "Part::Packed".into(),
            _ => continue,
        };
        parts.push_str(&format!("({}, {part}), ", field.number()));
    }
    parts
}
