//! haproxy's TCP check: connect() every two seconds, and nothing else.

use crate::{CLOSED, listen};
use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use std::fs;
use std::time::{Duration, Instant};
use xtask::lab::Lab;
use xtask::lab::process::Process;
use xtask::lab::topology::{BARE, BARELOAD, CLIENT, LOAD, LOAD_PORT, Pod};
use xtask::shell::wait_for;
use xtask::stage::play;

/// Two checks decide, one every two seconds, and one may just have been made.
const DECIDED: Duration = Duration::from_secs(10);

#[test]
fn haproxy_sees_a_closed_server_down_until_it_opens_as_with_direct_tcp() {
    play(|lab| {
        let balancers = [
            Balancer::start(lab, &CLIENT, &LOAD)?,
            Balancer::start(lab, &BARE, &BARELOAD)?,
        ];
        let all_become = |lab: &Lab, state: &str| {
            balancers
                .iter()
                .try_for_each(|it| it.becomes(lab, "other", state))
        };
        all_become(lab, "DOWN")?;
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(6) {
            for balancer in &balancers {
                let (open, other) = (balancer.state(lab, "open")?, balancer.state(lab, "other")?);
                ensure!(
                    open.starts_with("UP") && other.starts_with("DOWN"),
                    "{}: {open}, {other}",
                    balancer.pod.name
                );
            }
        }
        let servers = [listen(lab, &LOAD, CLOSED)?, listen(lab, &BARELOAD, CLOSED)?];
        let opened = all_become(lab, "UP");
        for process in servers {
            process.stop(Signal::SIGKILL)?;
        }
        opened?;
        all_become(lab, "DOWN")?;
        balancers
            .iter()
            .try_for_each(|balancer| balancer.process.stop(Signal::SIGKILL))
    });
}

/// A haproxy in a pod, with two servers of another pod: one on an open port, one on another.
struct Balancer {
    pod: &'static Pod,
    process: Process,
    socket: String,
}

impl Balancer {
    fn start(lab: &mut Lab, pod: &'static Pod, servers: &Pod) -> Result<Self> {
        let folder = lab.run.folder();
        let file = folder.join(format!("haproxy-{}.cfg", pod.name));
        let socket = folder.join(format!("haproxy-{}.sock", pod.name));
        let socket = socket.display().to_string();
        let to = servers.v4();
        let text = format!(
            "global\n stats socket {socket}\n\
             defaults\n mode tcp\n timeout connect 2s\n timeout client 5s\n timeout server 5s\n\
             frontend front\n bind 127.0.0.1:18080\n default_backend servers\n\
             backend servers\n default-server check inter 2s fall 2 rise 2\n \
             server open {to}:{LOAD_PORT}\n server other {to}:{CLOSED}\n"
        );
        fs::write(&file, text).context("write haproxy's configuration")?;
        let file = file.display().to_string();
        let name = format!("haproxy-{}", pod.name);
        let process = lab.spawn(pod, &name, &["haproxy", "-db", "-f", &file])?;
        let balancer = Self {
            pod,
            process,
            socket,
        };
        wait_for("haproxy", Duration::from_secs(5), || {
            balancer.state(lab, "open").map(Some)
        })?;
        Ok(balancer)
    }

    fn becomes(&self, lab: &Lab, server: &str, wanted: &str) -> Result<()> {
        let what = format!("{}'s server {server} to be {wanted}", self.pod.name);
        wait_for(&what, DECIDED, || {
            Ok((self.state(lab, server)? == wanted).then_some(()))
        })
    }

    /// `UP`, `DOWN`, or one of these on the way to the other.
    fn state(&self, lab: &Lab, server: &str) -> Result<String> {
        let ask = format!("echo 'show stat' | nc -N -U {}", self.socket);
        let table = lab.run(self.pod, &["sh", "-c", &ask])?;
        let (mut lines, columns) = (table.lines(), table.lines().next().unwrap_or_default());
        let place = |name| columns.split(',').position(|column| column == name);
        let status = place("status").with_context(|| format!("no table of states: {table}"))?;
        let line = lines.find(|line| line.starts_with(&format!("servers,{server},")));
        let state = line.and_then(|line| line.split(',').nth(status));
        Ok(state
            .with_context(|| format!("no {server}: {table}"))?
            .to_owned())
    }
}
