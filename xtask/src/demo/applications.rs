//! Clients and servers as their distribution ships them, and where each server says who called.

use crate::lab::topology::{CLIENT, SERVICES, Service};
use crate::lab::{Lab, process::Family, services::WEB_PAGE};
use crate::shell::wait_for;
use anyhow::{Result, ensure};
use std::net::IpAddr;
use std::time::Duration;

/// One run of a client.
pub struct Application {
    kind: Kind,
    family: Family,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Http,
    Sql,
    Redis,
    Mail,
}

pub const APPLICATIONS: [Application; 8] = [
    Application {
        kind: Kind::Http,
        family: Family::V4,
    },
    Application {
        kind: Kind::Http,
        family: Family::V6,
    },
    Application {
        kind: Kind::Sql,
        family: Family::V4,
    },
    Application {
        kind: Kind::Sql,
        family: Family::V6,
    },
    Application {
        kind: Kind::Redis,
        family: Family::V4,
    },
    Application {
        kind: Kind::Redis,
        family: Family::V6,
    },
    Application {
        kind: Kind::Mail,
        family: Family::V4,
    },
    Application {
        kind: Kind::Mail,
        family: Family::V6,
    },
];

const SQL: &str = "select 'answered by PostgreSQL'";
const LETTER: &str = "printf 'Subject: hello\\n\\nfrom the lab\\n' | \
                      curl -sS --max-time 5 --mail-from a@lab --mail-rcpt b@lab -T - \"$0\"";

impl Application {
    /// Runs the client against the service's address, checks its answer, and returns what the
    /// server's own log says about the caller.
    pub fn run(&self, lab: &Lab) -> Result<String> {
        let log = self.log();
        let before = lab.log(log).len();
        let answer = self.ask(lab)?;
        ensure!(
            answer.contains(self.expected()),
            "{} answered {answer:?}",
            self.shown()
        );
        if self.kind == Kind::Redis {
            return self.caller_in(&answer);
        }
        wait_for("the server's log", Duration::from_secs(2), || {
            self.caller_in(&lab.log(log)[before..]).map(Some)
        })
    }

    pub fn shown(&self) -> String {
        match self.kind {
            Kind::Http => format!("curl {}", self.url("http")),
            Kind::Sql => format!("psql -h {}", self.address()),
            Kind::Redis => format!("redis-cli -h {}", self.address()),
            Kind::Mail => format!("curl {}", self.url("smtp")),
        }
    }

    pub fn trait_shown(&self) -> &'static str {
        if self.kind == Kind::Mail {
            "the server speaks first"
        } else {
            "the client speaks first"
        }
    }

    fn ask(&self, lab: &Lab) -> Result<String> {
        let address = self.address().to_string();
        match self.kind {
            Kind::Http => lab.run(
                &CLIENT,
                &["curl", "-sS", "--max-time", "5", &self.url("http")],
            ),
            Kind::Sql => {
                let server =
                    format!("host={address} user=postgres dbname=postgres connect_timeout=5");
                lab.run(&CLIENT, &["psql", "-XAt", &server, "-c", SQL])
            }
            Kind::Redis => lab.run(&CLIENT, &["redis-cli", "-h", &address, "client", "info"]),
            Kind::Mail => lab.run(&CLIENT, &["sh", "-c", LETTER, &self.url("smtp")]),
        }
    }

    fn expected(&self) -> &'static str {
        match self.kind {
            Kind::Http => WEB_PAGE,
            Kind::Sql => "answered by PostgreSQL",
            Kind::Redis => "addr=",
            Kind::Mail => "",
        }
    }

    /// The place in `text` where the server names its caller, which must be the client pod.
    fn caller_in(&self, text: &str) -> Result<String> {
        let ip = match self.family {
            Family::V4 => IpAddr::from(CLIENT.v4()),
            Family::V6 => CLIENT.v6().into(),
        };
        let (server, named) = match self.kind {
            Kind::Http => ("nginx", format!("{ip} ")),
            Kind::Sql => ("PostgreSQL", format!("connection received: host={ip} ")),
            Kind::Redis => ("Redis", format!("addr={}:", bracketed(ip))),
            Kind::Mail => ("aiosmtpd", format!("Peer: ('{ip}'")),
        };
        let is_named = match self.kind {
            Kind::Http => text.lines().any(|line| line.starts_with(&named)),
            _ => text.contains(&named),
        };
        ensure!(
            is_named,
            "{server} does not say that {ip} called; it says:\n{text}"
        );
        Ok(format!("{server} saw {ip}"))
    }

    fn log(&self) -> &'static str {
        match (self.kind, self.family) {
            (Kind::Http, _) => "web-access",
            (Kind::Sql, _) => "db",
            (Kind::Redis, _) => "cache",
            (Kind::Mail, Family::V4) => "mail",
            (Kind::Mail, Family::V6) => "mail6",
        }
    }

    fn service(&self) -> &'static Service {
        let name = match self.kind {
            Kind::Http => "web",
            Kind::Sql => "db",
            Kind::Redis => "cache",
            Kind::Mail => "mail",
        };
        let found = SERVICES.iter().find(|service| service.pod.name == name);
        found.expect("each kind has its service in the topology")
    }

    fn address(&self) -> IpAddr {
        match self.family {
            Family::V4 => self.service().v4().into(),
            Family::V6 => self.service().v6().into(),
        }
    }

    fn url(&self, scheme: &str) -> String {
        format!("{scheme}://{}/", bracketed(self.address()))
    }
}

fn bracketed(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => format!("[{v6}]"),
    }
}
