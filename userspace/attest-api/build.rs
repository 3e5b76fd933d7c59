//! Makes client and server of the service; the compiler of the definition is a library.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let definition = "proto/kedge/attest/v1/attest.proto";
    println!("cargo::rerun-if-changed={definition}");
    let compiled = protox::compile([definition], ["proto"])?;
    tonic_prost_build::configure().compile_fds(compiled)?;
    Ok(())
}
