//! OpenMetrics, made from the same numbers as `kedge status`.

use crate::edge::kernel_tls;
use crate::edge::report::Observed;
use kedge_model::Refusal;
use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::{Registry, Unit};
use std::fmt;
use std::sync::atomic::Ordering::Relaxed;

pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

type Labels = Vec<(&'static str, String)>;

pub fn encode(observed: &Observed) -> Result<String, fmt::Error> {
    let status = observed.status();
    let mut registry = Registry::with_prefix("kedge");
    let gauge = |value: u64| ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));

    let flows = Family::<Labels, Gauge>::default();
    for worker in &status.workers {
        let labels = vec![("worker", worker.worker.to_string())];
        flows
            .get_or_create(&labels)
            .set(i64::try_from(worker.flows).unwrap_or(i64::MAX));
    }
    registry.register("flows", "Flows that are carried now", flows);
    let opened = status
        .counters
        .get("flows.opened")
        .copied()
        .unwrap_or_default();
    registry.register(
        "flows_opened",
        "Flows since the start",
        ConstCounter::new(opened),
    );
    let handshakes = observed.links.handshakes_total.load(Relaxed);
    registry.register(
        "link_handshakes",
        "Full handshakes since the start",
        ConstCounter::new(handshakes),
    );
    registry.register(
        "links",
        "Links that are live now",
        gauge(observed.links.all().len() as u64),
    );
    registry.register(
        "directory_version",
        "Version of the directory",
        gauge(status.directory.version),
    );
    registry.register_with_unit(
        "directory_age",
        "Since the directory was last taken",
        Unit::Seconds,
        gauge(status.directory.age_s),
    );
    registry.register_with_unit(
        "svid_expires_in",
        "Until the node's own X.509-SVID expires; below zero when it has",
        Unit::Seconds,
        ConstGauge::new(status.svid.expires_in_s),
    );
    register_reasons(&mut registry, observed, &status);

    let mut out = String::new();
    text::encode(&mut out, &registry)?;
    Ok(out)
}

fn register_reasons(registry: &mut Registry, observed: &Observed, status: &kedge_api::Status) {
    registry.register(
        "refused",
        "Connections refused, by reason",
        refused(observed),
    );
    registry.register(
        "link_failures",
        "Links that failed, before they stood or after, by reason",
        by_reason(status, "links.failed."),
    );
    registry.register(
        "strangers",
        "Connections to the peer port that came to nothing, by reason",
        by_reason(status, "strangers."),
    );
    registry.register(
        "attestation",
        "What attestation has done, by name",
        by_reason(status, "attestation."),
    );
    let (now, since) = kernel_tls(status);
    registry.register(
        "kernel_tls",
        "What the kernel has counted of its TLS, by its own names",
        since,
    );
    registry.register(
        "kernel_tls_now",
        "Connections and the like that its TLS has now",
        now,
    );
    registry.register(
        "capture",
        "What the BPF programs have counted",
        captured(status),
    );
}

type Counts = Family<Labels, prometheus_client::metrics::counter::Counter>;

fn refused(observed: &Observed) -> Counts {
    let counts = Counts::default();
    for refusal in Refusal::ALL {
        let labels = vec![("reason", refusal.label().to_owned())];
        counts
            .get_or_create(&labels)
            .inc_by(observed.events.count_of(*refusal));
    }
    counts
}

fn by_reason(status: &kedge_api::Status, prefix: &str) -> Counts {
    let counts = Counts::default();
    for (name, count) in &status.counters {
        if let Some(reason) = name.strip_prefix(prefix) {
            let labels = vec![("reason", reason.to_owned())];
            counts.get_or_create(&labels).inc_by(*count);
        }
    }
    counts
}

fn kernel_tls(status: &kedge_api::Status) -> (Family<Labels, Gauge>, Counts) {
    let (now, since) = (Family::<Labels, Gauge>::default(), Counts::default());
    for (name, count) in &status.counters {
        let Some(what) = name.strip_prefix(kernel_tls::PREFIX) else {
            continue;
        };
        let labels = vec![("what", what.to_owned())];
        match name.starts_with(kernel_tls::NOW) {
            true => {
                let count = i64::try_from(*count).unwrap_or(i64::MAX);
                now.get_or_create(&labels).set(count);
            }
            false => {
                since.get_or_create(&labels).inc_by(*count);
            }
        }
    }
    (now, since)
}

fn captured(status: &kedge_api::Status) -> Counts {
    let counts = Counts::default();
    for (name, count) in &status.capture.counters {
        counts
            .get_or_create(&vec![("what", name.clone())])
            .inc_by(*count);
    }
    counts
}
