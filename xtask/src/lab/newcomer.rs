//! Pods that are made while the lab runs, many at once, on node a: a network namespace each and a
//! veth. Their processes make their cgroups; no document knows them before somebody writes it.

use super::network::ip;
use super::run::Run;
use super::topology::{Node, Place, TRUST_DOMAIN};
use anyhow::{Result, ensure};
use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

/// Last numbers of their addresses: below these are the lab's own pods.
const HOSTS: std::ops::Range<u8> = 100..200;

/// They go when this is dropped.
#[derive(Debug)]
pub struct Newcomers {
    run: Run,
    pub pods: Vec<Newcomer>,
}

#[derive(Debug)]
pub struct Newcomer {
    pub name: String,
    host: u8,
}

impl Newcomers {
    /// `round` makes their names differ from those of others in the same lab.
    ///
    /// # Errors
    /// When there are too many, or `ip` refuses one of its lines.
    pub fn create(run: &Run, round: usize, count: usize) -> Result<Self> {
        ensure!(count <= HOSTS.len(), "{count} pods at once are too many");
        let pod = |host| Newcomer {
            name: format!("new{round}x{host}"),
            host,
        };
        let all = Self {
            run: run.clone(),
            pods: HOSTS.take(count).map(pod).collect(),
        };
        ip(
            None,
            &all.lines(|pod| vec![format!("netns add {}", pod.netns(run))]),
        )?;
        ip(Some(&node(run)), &all.lines(|pod| pod.node_lines(run)))?;
        for pod in &all.pods {
            ip(Some(&pod.netns(run)), &pod.own_lines())?;
        }
        Ok(all)
    }

    /// What a directory needs in order to know them, to be written under others.
    #[must_use]
    pub fn entries(&self) -> String {
        self.pods.iter().map(Newcomer::entry).collect()
    }

    fn lines(&self, of: impl Fn(&Newcomer) -> Vec<String>) -> Vec<String> {
        self.pods.iter().flat_map(of).collect()
    }
}

impl Drop for Newcomers {
    fn drop(&mut self) {
        // What cannot be removed goes with the lab. Devices first: a namespace goes when nobody
        // looks, and its routes would stand in the way of the next ones until then.
        let devices = self.lines(|pod| vec![format!("link del {}", pod.device())]);
        let _ = ip(Some(&node(&self.run)), &devices);
        let _ = ip(
            None,
            &self.lines(|pod| vec![format!("netns del {}", pod.netns(&self.run))]),
        );
        for cgroup in self
            .pods
            .iter()
            .filter_map(|pod| pod.cgroup(&self.run).ok())
        {
            // A process that has ended leaves its cgroup a moment later.
            let _ = crate::shell::wait_for("the cgroup", Duration::from_secs(1), || {
                Ok((!cgroup.exists() || fs::remove_dir(&cgroup).is_ok()).then_some(()))
            });
        }
    }
}

impl Newcomer {
    #[must_use]
    pub fn netns(&self, run: &Run) -> String {
        format!("{}{}", run.netns_prefix(), self.name)
    }

    /// Below the managed root of its node; not there before its first process makes it.
    ///
    /// # Errors
    /// When no cgroup2 is mounted.
    pub fn cgroup(&self, run: &Run) -> Result<PathBuf> {
        Ok(run
            .cgroup()?
            .join(Node::A.name())
            .join("pods")
            .join(&self.name))
    }

    #[must_use]
    pub fn v4(&self) -> Ipv4Addr {
        let [a, b, c, _] = Node::A.gateway_v4().octets();
        Ipv4Addr::new(a, b, c, self.host)
    }

    fn device(&self) -> String {
        format!("n-{}", self.name)
    }

    fn node_lines(&self, run: &Run) -> Vec<String> {
        let (device, gateway) = (self.device(), Node::A.gateway_v4());
        vec![
            format!(
                "link add {device} type veth peer name eth0 netns {}",
                self.netns(run)
            ),
            format!("address add {gateway}/32 dev {device}"),
            format!("link set {device} up"),
            format!("route add {} dev {device}", self.v4()),
        ]
    }

    fn own_lines(&self) -> Vec<String> {
        let gateway = Node::A.gateway_v4();
        vec![
            "link set lo up".to_owned(),
            format!("address add {}/32 dev eth0", self.v4()),
            "link set eth0 up".to_owned(),
            format!("route add {gateway} dev eth0"),
            format!("route add default via {gateway} src {}", self.v4()),
        ]
    }

    fn entry(&self) -> String {
        let (name, ip, node) = (&self.name, self.v4(), Node::A.name());
        format!(
            "\n[[workload]]\nuid = \"{name}\"\nid = \"spiffe://{TRUST_DOMAIN}/ns/new/sa/{name}\"\n\
             node = \"{node}\"\naddresses = [\"{ip}\"]\ncgroup = \"pods/{name}\"\n"
        )
    }
}

/// The pattern of all of them.
#[must_use]
pub fn any_newcomer() -> String {
    format!("spiffe://{TRUST_DOMAIN}/ns/new/*")
}

fn node(run: &Run) -> String {
    Place::from(Node::A).netns(run)
}
