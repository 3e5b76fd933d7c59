//! Chains of this namespace that drop what no rule of theirs lets in, as far as nft(8) tells:
//! iptables' are among them. Rules are not followed; a connection that arrives needs none of this.

use serde_json::Value;
use std::process::{Command, Stdio};

/// Such as `inet filter input`.
pub fn dropping_chains() -> Vec<String> {
    let asked = Command::new("nft")
        .args(["-j", "list", "chains"])
        .stdin(Stdio::null())
        .output();
    let listed = asked
        .ok()
        .and_then(|done| serde_json::from_slice(&done.stdout).ok());
    chains(&listed.unwrap_or_default())
}

fn chains(listed: &Value) -> Vec<String> {
    let objects = listed["nftables"].as_array().into_iter().flatten();
    let chains = objects.map(|object| &object["chain"]).filter(|chain| {
        let hook = chain["hook"].as_str().unwrap_or_default();
        chain["policy"] == "drop" && ["input", "prerouting", "ingress"].contains(&hook)
    });
    let word = |chain: &Value, key: &str| chain[key].as_str().unwrap_or_default().to_owned();
    chains
        .map(|chain| {
            ["family", "table", "name"]
                .map(|key| word(chain, key))
                .join(" ")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_chains_that_drop_what_comes_in_are_named() {
        let listed = serde_json::json!({ "nftables": [
            { "metainfo": { "version": "1.0.6" } },
            { "chain": { "family": "inet", "table": "f", "name": "in", "hook": "input", "policy": "drop" } },
            { "chain": { "family": "ip", "table": "f", "name": "open", "hook": "input", "policy": "accept" } },
            { "chain": { "family": "ip", "table": "f", "name": "fw", "hook": "forward", "policy": "drop" } },
            { "chain": { "family": "ip", "table": "f", "name": "plain" } },
        ] });
        assert_eq!(chains(&listed), ["inet f in"]);
        assert!(chains(&Value::Null).is_empty());
    }
}
