//! The servers in the pods: Debian's nginx, PostgreSQL and Redis, a mail server for a protocol in
//! which the server speaks first, and kedge's own load generator. Each has a configuration and
//! data of the lab's own; nothing of the machine's is read or changed.

use super::process::{Family, Process, command_at};
use super::run::Run;
use super::topology::{
    BARELOAD, CACHE, CACHE_PORT, DB, DB_PORT, LOAD, LOAD_PORT, LOCAL, MAIL, MAIL_PORT, Node, Place,
    Pod, WEB, WEB_PORT,
};
use crate::shell::{command, find_program, output};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};

/// What nginx serves; no other byte on any wire looks like it.
pub const WEB_PAGE: &str = "kedge-lab-page: served by nginx\n";

/// A started server and the listener that tells when it is ready.
pub struct Server {
    pub process: Process,
    pub family: Family,
    pub port: u16,
}

/// Starts kedge's own of these nodes and, unless `KEDGE_LAB_SERVERS` is set, all others; each is
/// ready once it listens.
///
/// # Errors
/// When one cannot be started.
pub fn start(run: &Run, nodes: &[Node], load: &Path) -> Result<Vec<Server>> {
    let mut servers = Vec::new();
    // In a virtual machine there are no others.
    if std::env::var("KEDGE_LAB_SERVERS").is_err() {
        servers.extend([web(run)?, db(run)?, cache(run)?]);
        let mail4 = mail(run, "mail", "0.0.0.0")?;
        servers.push(Server {
            family: Family::V4,
            ..mail4
        });
        servers.push(mail(run, "mail6", "::")?);
    }
    let here = |pod: &&Pod| nodes.contains(&pod.node);
    for pod in [&LOAD, &BARELOAD, &LOCAL].into_iter().filter(here) {
        servers.push(load_server(run, pod, load)?);
    }
    Ok(servers)
}

/// Where nginx writes one line per request, beginning with the client's address and port.
#[must_use]
pub fn web_log(run: &Run) -> PathBuf {
    run.log("web-access")
}

fn web(run: &Run) -> Result<Server> {
    let folder = run.folder().join("web");
    fs::create_dir_all(folder.join("html"))?;
    fs::write(folder.join("html/index.html"), WEB_PAGE)?;
    let config = folder.join("nginx.conf");
    let access_log = web_log(run);
    fs::write(&config, nginx_conf(&folder, &access_log))?;
    let words = ["nginx", "-e", "stderr", "-c", text(&config)?];
    start_in(run, &WEB, "web", &words, WEB_PORT)
}

fn nginx_conf(folder: &Path, access_log: &Path) -> String {
    let folder = folder.display();
    format!(
        r#"daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr;
events {{ worker_connections 4096; }}
http {{
    log_format lab '$remote_addr $remote_port "$request" $status';
    access_log {access_log} lab;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen {WEB_PORT};
        listen [::]:{WEB_PORT};
        root {folder}/html;
    }}
}}
"#,
        access_log = access_log.display()
    )
}

fn db(run: &Run) -> Result<Server> {
    let bin = postgres_bin().context("PostgreSQL's server is not installed: cargo xtask setup")?;
    let folder = run.folder().join("db");
    fs::create_dir_all(&folder)?;
    output(&mut command(["chown", "postgres:", text(&folder)?]))?;
    let data = folder.join("data");
    let initdb = bin.join("initdb");
    let as_postgres = [
        "setpriv",
        "--reuid=postgres",
        "--regid=postgres",
        "--init-groups",
    ];
    output(&mut command(as_postgres.iter().copied().chain([
        text(&initdb)?,
        "--no-sync",
        "--no-locale",
        "--encoding=UTF8",
        "--auth=trust",
        "--username=postgres",
        "-D",
        text(&data)?,
    ])))?;
    fs::write(data.join("pg_hba.conf"), "host all all all trust\n")?;
    let port = format!("port={DB_PORT}");
    let server = bin.join("postgres");
    // An IPC namespace of its own: PostgreSQL's shared memory then goes with it, even by kill -9.
    let mut words = vec!["unshare", "--ipc"];
    words.extend(as_postgres);
    words.extend([text(&server)?, "-D", text(&data)?]);
    for setting in [
        "listen_addresses=*",
        &port,
        "unix_socket_directories=",
        "dynamic_shared_memory_type=mmap",
        "fsync=off",
        "shared_buffers=16MB",
        "log_connections=on",
        "log_line_prefix=%m client=%r ",
    ] {
        words.extend(["-c", setting]);
    }
    start_in(run, &DB, "db", &words, DB_PORT)
}

/// Debian keeps the server's programs of each major version in a folder off the path.
#[must_use]
pub fn postgres_bin() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?.flatten();
    versions
        .map(|version| version.path().join("bin"))
        .filter(|bin| bin.join("initdb").exists())
        .max()
}

fn cache(run: &Run) -> Result<Server> {
    let folder = run.folder().join("cache");
    fs::create_dir_all(&folder)?;
    let port = CACHE_PORT.to_string();
    let words = [
        "redis-server",
        "--bind",
        "*",
        "-::*",
        "--port",
        &port,
        "--save",
        "",
        "--appendonly",
        "no",
        "--protected-mode",
        "no",
        "--dir",
        text(&folder)?,
    ];
    start_in(run, &CACHE, "cache", &words, CACHE_PORT)
}

/// One process per family: aiosmtpd's IPv6 listener takes no IPv4.
fn mail(run: &Run, name: &str, any: &str) -> Result<Server> {
    let listen = format!("{any}:{MAIL_PORT}");
    // -d makes it log the peer of every session.
    let words = ["aiosmtpd", "--nosetuid", "-d", "--listen", &listen];
    start_in(run, &MAIL, name, &words, MAIL_PORT)
}

fn load_server(run: &Run, pod: &'static Pod, load: &Path) -> Result<Server> {
    ensure!(
        load.exists(),
        "{} is not built: cargo xtask build",
        load.display()
    );
    let listen = format!("[::]:{LOAD_PORT}");
    let greet = format!("[::]:{}", LOAD_PORT + 1);
    let words = [
        text(load)?,
        "server",
        "--listen",
        &listen,
        "--greet",
        &greet,
    ];
    start_in(run, pod, pod.name, &words, LOAD_PORT)
}

fn start_in(run: &Run, pod: &'static Pod, name: &str, words: &[&str], port: u16) -> Result<Server> {
    ensure!(
        find_program(words[0]).is_some() || Path::new(words[0]).exists(),
        "{} is not installed: cargo xtask setup",
        words[0]
    );
    let place = Place::from(pod);
    let process = Process::spawn(run, place, name, command_at(run, place, words)?)?;
    Ok(Server {
        process,
        family: Family::V6,
        port,
    })
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path of the lab is valid UTF-8")
}
