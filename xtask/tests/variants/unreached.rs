//! Pods whose connections do not arrive at the daemon: told, named, and well again by themselves
//! once the way is free. No byte of theirs takes another way.

use crate::{
    Change, becomes_uncapturable, change, changed, doctor_names, is_well, last_event, told_once,
    uncapturable,
};
use anyhow::{Result, ensure};
use std::time::Duration;
use xtask::lab::Lab;
use xtask::lab::topology::{CLIENT, Node};
use xtask::shell::wait_for;
use xtask::stage::{client_reaches, play, server, under_the_oracle};

/// A pod that has a route to the pods and to nothing else.
#[test]
fn a_pod_without_a_route_to_the_capture_range_is_uncapturable_until_it_has_one() {
    play(|lab| {
        let apply = "ip route add 10.244.0.0/16 via 10.244.1.1; ip route del default";
        let undo = "ip route replace default via 10.244.1.1 src 10.244.1.10; \
                    ip route del 10.244.0.0/16 via 10.244.1.1";
        found(
            lab,
            change(&CLIENT, apply, undo),
            &Named {
                reason: "no route to 169.254.76.0/22",
                cause: "no route from it to 169.254.76.0/22",
                remedy: "ip route add 169.254.76.0/22",
            },
        )
    });
}

/// What a network plugin makes of an egress policy, at the node's end of the pod's veth.
#[test]
fn an_egress_policy_of_pod_addresses_only_makes_a_pod_uncapturable() {
    play(|lab| {
        let apply = "nft -f - <<END
            table inet egress {
                chain pods {
                    type filter hook prerouting priority 0; policy accept
                    iifname \"p-client\" ip daddr != 10.244.0.0/16 drop
                    iifname \"p-client\" ip6 daddr fd6b:6564:6765::/118 drop
                }
            }\nEND";
        let undo = "nft delete table inet egress";
        found(
            lab,
            change(Node::A, apply, undo),
            &Named {
                reason: "not answered",
                cause: "dropped on the way to kedged",
                remedy: "ip daddr 169.254.76.0/22 tcp dport 15001",
            },
        )
    });
}

/// A host firewall that lets in what it knows.
#[test]
fn a_host_that_drops_input_makes_its_pods_uncapturable() {
    play(|lab| {
        let apply = "nft -f - <<END
            table inet filter {
                chain input {
                    type filter hook input priority 0; policy drop
                    iifname lo accept
                    ct state established,related accept
                    meta l4proto { icmp, ipv6-icmp } accept
                    tcp dport 15443 accept
                }
            }\nEND";
        let undo = "nft delete table inet filter";
        found(
            lab,
            change(Node::A, apply, undo),
            &Named {
                reason: "not answered",
                cause: "policy drop: inet filter input",
                remedy: "nft insert rule inet filter input ip daddr 169.254.76.0/22",
            },
        )
    });
}

/// What keeps `client` from being captured, in status, and as doctor puts it.
struct Named {
    reason: &'static str,
    cause: &'static str,
    remedy: &'static str,
}

/// The change keeps `client` from being captured, which is told once for any number of attempts;
/// undoing it is all that is needed.
fn found(lab: &mut Lab, change: Change, named: &Named) -> Result<()> {
    let report = under_the_oracle(lab, "unreached", |lab| {
        let since = last_event(lab)?;
        changed(lab, &[change], |lab| {
            for _ in 0..4 {
                ensure!(!attempt(lab)?, "client is captured");
            }
            becomes_uncapturable(lab, named.reason)?;
            told_once(lab, since, "uncapturable", "kedge doctor")?;
            doctor_names(lab, named.cause, named.remedy)
        })?;
        ensure!(client_reaches(lab)?, "it cannot be reached afterwards");
        wait_for("the arrival", Duration::from_secs(5), || {
            told_once(lab, since, "capturable", "").map(Some)
        })?;
        ensure!(uncapturable(lab)?.is_none());
        is_well(lab)
    })?;
    report.is_clean()
}

/// Whether `client` can connect within the time that a patient application gives it.
fn attempt(lab: &Lab) -> Result<bool> {
    let program = lab.tools.load.display().to_string();
    let words = ["timeout", "4", &program, "peer", &server()];
    Ok(lab.try_run(&CLIENT, &words)?.status.success())
}
